"""The envelope: what a submitter signs, and what every site checks for itself. The hub can't make one.

The document is canonical JSON: version, federation, job, bundle (digest, length), sites, issued, not_after, signer
(name, serial). The signature is ECDSA with SHA-256 by the key of the submitter's certificate.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fl_runtime.errors import NONSENSE, KitError, RefusedError
from fl_runtime.kit import Kit
from fl_runtime.names import is_job_id
from fl_runtime.wire.identity import Identity, issued_by_ca, read_identity

VALID_S = 30 * 24 * 3600.0
_SKEW_S = 24 * 3600.0  # like the certificates' backdating


@dataclass(frozen=True)
class Envelope:
    """A checked envelope."""

    job: str
    bundle: bytes
    bundle_length: int
    sites: tuple[str, ...] | None
    not_after: float
    signer: Identity


def seal(kit: Kit, job: str, bundle: bytes, length: int, sites: tuple[str, ...] | None) -> tuple[bytes, bytes, bytes]:
    """Sign with an admin's kit: (document, signature, certificate PEM)."""
    certificate = x509.load_pem_x509_certificate(kit.certificate)
    signer = read_identity(certificate)
    now = time.time()
    document = _canonical(
        {
            "version": 1,
            "federation": kit.federation,
            "job": job,
            "bundle": {"digest": bundle.hex(), "length": length},
            "sites": "all" if sites is None else list(sites),
            "issued": int(now),
            "not_after": int(now + VALID_S),
            "signer": {"name": signer.name, "serial": signer.serial},
        }
    )
    key = serialization.load_pem_private_key(kit.key, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KitError("The kit's key is not an elliptic-curve key", participant=kit.name)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return document, key.sign(document, ec.ECDSA(hashes.SHA256())), pem


def open_envelope(kit: Kit, document: bytes, signature: bytes, certificate_pem: bytes) -> Envelope:
    """Check signature, signer, federation and time against this kit's CA.

    Raises:
        RefusedError: with the reason.
    """

    def refuse(why: str) -> RefusedError:
        return RefusedError("The job's envelope is refused", participant=kit.name, why=why)

    try:
        certificate, signer = issued_by_ca(certificate_pem, kit.ca)
    except ValueError:
        raise refuse("its signer's certificate is not from this federation's CA") from None
    now = datetime.now(timezone.utc)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise refuse(f"the certificate of {signer.name} is not valid now")
    if signer.role != "admin" or signer.federation != kit.federation:
        raise refuse(f"{signer.name} is a {signer.role} of {signer.federation}; only admins submit jobs")
    key = certificate.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, document, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise refuse("its signature does not fit its content: it was changed on the way") from None
    try:
        body = json.loads(document)
        if body["version"] != 1 or _canonical(body) != document:
            raise ValueError("another version or form")
        envelope = Envelope(
            job=str(body["job"]),
            bundle=bytes.fromhex(body["bundle"]["digest"]),
            bundle_length=int(body["bundle"]["length"]),
            sites=None if body["sites"] == "all" else tuple(str(site) for site in body["sites"]),
            not_after=float(body["not_after"]),
            signer=signer,
        )
        federation, serial, issued = str(body["federation"]), str(body["signer"]["serial"]), float(body["issued"])
    except NONSENSE as error:
        raise refuse(f"its document is not readable: {error}") from None
    if federation != kit.federation:
        raise refuse(f"it is for the federation {federation}")
    if serial != signer.serial or not is_job_id(envelope.job):
        raise refuse("its signer or its job id is not what it says")
    if time.time() > envelope.not_after:
        raise refuse("it was valid until " + datetime.fromtimestamp(envelope.not_after, timezone.utc).isoformat())
    if issued > time.time() + _SKEW_S:
        raise refuse("it is from the future: check this machine's clock")
    return envelope


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
