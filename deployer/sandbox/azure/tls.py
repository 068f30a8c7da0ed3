"""The sandbox's own certificate authority: it signs the emulator's TLS certificate and nothing else.

azure-core refuses to send a bearer token over plain HTTP, so the emulator speaks TLS. The authority lies in the
sandbox's home; only clients that are pointed at its certificate trust it.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_UTC = datetime.timezone.utc
_CA_DAYS = 365
_RENEW_BEFORE_DAYS = 30


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its certificate, its key, and the file that clients are given."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    path: Path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(draft, path)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def open_authority(folder: Path) -> Authority:
    """The authority in `folder`; made there if there is none or it runs out within a month."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    certificate_path, key_path = folder / "ca.pem", folder / "ca.key"
    now = datetime.datetime.now(_UTC)
    if certificate_path.exists() and key_path.exists():
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        lasts = certificate.not_valid_after_utc - now > datetime.timedelta(days=_RENEW_BEFORE_DAYS)
        if lasts and isinstance(key, ec.EllipticCurvePrivateKey):
            return Authority(certificate, key, certificate_path)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("fedspan sandbox")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    _write(key_path, _key_pem(key))
    _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(certificate, key, certificate_path)


def server_context(authority: Authority, addresses: tuple[str, ...], folder: Path) -> ssl.SSLContext:
    """A TLS server's context with a fresh certificate for `addresses` and `localhost`.

    `folder` holds the key for a moment, as OpenSSL loads keys from files only.
    """
    now = datetime.datetime.now(_UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    issuer_key_id = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name("fedspan sandbox: Azure"))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(min(authority.certificate.not_valid_after_utc, now + datetime.timedelta(days=90)))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([*names, x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_id), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    chain = folder / f"server.{os.getpid()}.pem"
    _write(chain, certificate.public_bytes(serialization.Encoding.PEM) + _key_pem(key))
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(chain)
    finally:
        chain.unlink()
    return context
