"""The federation's CA and the participants' certificates: X.509, ECDSA P-256.

A participant's identity is its certificate: name in CN, federation in O, role in OU (and an admin's role in `title`).
What is verified is always a name, `<participant>.<federation>.fedspan`, never an address.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from startup_kits.errors import KitError

CA_LIFETIME = dt.timedelta(days=3650)
LIFETIME = dt.timedelta(days=730)
#: Machines' clocks differ; a certificate that is valid since yesterday works on all of them.
BACKDATED = dt.timedelta(hours=24)
#: A certificate with less than this left is made anew by `fedspan provision`.
RENEW_BEFORE = dt.timedelta(days=30)


@dataclass(frozen=True)
class Subject:
    """Whom a certificate names."""

    name: str
    federation: str
    role: str
    admin_role: str | None = None
    hostname: str | None = None

    def x509_name(self) -> x509.Name:
        parts = [
            x509.NameAttribute(NameOID.COMMON_NAME, self.name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.federation),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, self.role),
        ]
        if self.admin_role:
            parts.append(x509.NameAttribute(NameOID.TITLE, self.admin_role))
        return x509.Name(parts)

    def alternative_names(self) -> list[x509.GeneralName]:
        if self.role == "admin":
            return [x509.RFC822Name(self.name)]
        names: list[x509.GeneralName] = [x509.DNSName(f"{self.name}.{self.federation}.fedspan")]
        if self.hostname:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(self.hostname)))
            except ValueError:
                names.append(x509.DNSName(self.hostname))
        return names

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Subject:
        """Whom a certificate names; absent parts are empty."""

        def part(oid: x509.ObjectIdentifier) -> str:
            values = certificate.subject.get_attributes_for_oid(oid)
            return str(values[0].value) if values else ""

        return cls(
            part(NameOID.COMMON_NAME),
            part(NameOID.ORGANIZATION_NAME),
            part(NameOID.ORGANIZATIONAL_UNIT_NAME),
            part(NameOID.TITLE) or None,
        )


@dataclass(frozen=True)
class Authority:
    """A CA that can sign: its certificate and its key, in memory only."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, federation: str) -> Authority:
        """A new self-signed CA for one federation; it can sign participants, but no further CA."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, f"{federation} federation CA"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation),
            ]
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(name, name, key.public_key(), CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(sign_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes, passphrase: bytes) -> Authority:
        """The CA from its two files.

        Raises:
            KitError: the passphrase is wrong, or the files do not belong together.
        """
        certificate = load_certificate(certificate_pem, "the CA's certificate")
        try:
            key = serialization.load_pem_private_key(key_pem, passphrase)
        except (ValueError, TypeError):
            raise KitError(
                "the CA's key can't be opened",
                why="the passphrase is wrong, or the file is damaged",
                next_step="fedspan provision --passphrase-file FILE",
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise KitError(
                "the CA's key and certificate do not belong together",
                next_step="restore both files of .fedspan/ca from your backup",
            )
        return cls(certificate, key)

    def encrypted_key(self, passphrase: bytes) -> bytes:
        """The key as PKCS#8 PEM, encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase),
        )

    def issue(self, subject: Subject, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        """A participant's certificate, with key usage by role."""
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if subject.role == "server":
            usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
        return (
            _builder(subject.x509_name(), self.certificate.subject, key, LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(subject.alternative_names()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def sign(self, content: bytes) -> bytes:
        """A detached ECDSA signature with SHA-256, DER."""
        return self.key.sign(content, ec.ECDSA(hashes.SHA256()))


def check_issued(certificate: x509.Certificate, ca: x509.Certificate) -> None:
    """Checks that `ca` is a CA and signed `certificate`, and that both are valid now.

    Raises:
        KitError: it is not so.
    """
    try:
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
        ca.verify_directly_issued_by(ca)
        certificate.verify_directly_issued_by(ca)
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        raise KitError("startup/participant.crt was not issued by startup/ca.crt") from None
    if not constraints.ca:
        raise KitError("startup/ca.crt is not the certificate of a CA")
    now = dt.datetime.now(dt.timezone.utc)
    for one, what in ((ca, "startup/ca.crt"), (certificate, "startup/participant.crt")):
        if now > one.not_valid_after_utc:
            raise KitError(f"{what} has expired on {one.not_valid_after_utc:%Y-%m-%d}", next_step="fedspan provision")
        if now < one.not_valid_before_utc:
            raise KitError(
                f"{what} is not valid before {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
                why=f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC",
                next_step="set this machine's clock",
            )


def verify_signature(ca: x509.Certificate, content: bytes, signature: bytes) -> bool:
    """Whether the CA's key made this detached signature."""
    key = ca.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def load_certificate(pem: bytes, what: str) -> x509.Certificate:
    """Raises KitError when it is no certificate."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise KitError(f"{what} is no certificate") from None


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER form, as people compare it: `AB:CD:…`."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def normal_fingerprint(text: str) -> str:
    """A fingerprint as typed by a person (any case, with or without colons, blanks and `SHA256:`) in the usual form.

    Raises:
        KitError: it is no SHA-256 fingerprint.
    """
    digits = "".join(text.upper().removeprefix("SHA256:").replace(":", " ").split())
    try:
        value = bytes.fromhex(digits)
    except ValueError:
        value = b""
    if len(value) != 32:
        raise KitError(
            f"{text!r} is no SHA-256 fingerprint",
            why="64 hexadecimal digits are wanted, as AB:CD:…",
            next_step="--ca-fingerprint with the whole fingerprint that the federation's lead reads to you",
        )
    return value.hex(":").upper()


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8 PEM, not encrypted: the runtime must read it unattended. Its file is 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    start = dt.datetime.now(dt.timezone.utc) - BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + BACKDATED + lifetime)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
