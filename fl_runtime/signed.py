"""What an admin signs, and what every receiver checks for itself: job envelopes and orders. The hub can't make either.

A document is canonical JSON with version, federation, issued, not_after and signer (name, serial) beside its own keys;
the signature is ECDSA with SHA-256 by the key of the signer's certificate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fl_runtime.errors import NONSENSE, KitError, RefusedError
from fl_runtime.kit import Kit
from fl_runtime.wire.identity import Identity, issued_by_ca, read_identity

Refuse = Callable[[str], RefusedError]
T = TypeVar("T")


def sign(kit: Kit, body: Mapping[str, Any], valid_s: float) -> tuple[bytes, bytes, bytes]:
    """Sign with an admin's kit: (document, signature, certificate PEM).

    Raises:
        KitError: its key is none that can sign.
    """
    certificate = x509.load_pem_x509_certificate(kit.certificate)
    signer, now = read_identity(certificate), time.time()
    document = canonical(
        {
            "version": 1,
            "federation": kit.federation,
            "issued": int(now),
            "not_after": int(now + valid_s),
            "signer": {"name": signer.name, "serial": signer.serial},
            **body,
        }
    )
    key = serialization.load_pem_private_key(kit.key, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KitError(
            "The kit's key is not an elliptic-curve key",
            participant=kit.name,
            next_step=f"fedspan kit verify {kit.path}",
        )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return document, key.sign(document, ec.ECDSA(hashes.SHA256())), pem


def check(
    kit: Kit,
    sealed: tuple[bytes, bytes, bytes],
    read: Callable[[Mapping[str, Any], Identity], T],
    refuse: Refuse,
    only: str,
    *,
    at_any_time: bool = False,
) -> tuple[T, float]:
    """What `read` makes of the document, and when it was issued: certificate, role, signature, form, federation and
    signer are checked against this kit's CA; the times are for the caller.

    Args:
        sealed: document, signature, certificate PEM.
        read: of the document's own keys; whatever nonsense it meets, it may raise.
        refuse: makes the error of a reason.
        only: `only admins give orders`.
        at_any_time: also after (or before) the time for which the signer's certificate is valid.

    Raises:
        RefusedError: with the reason.
    """
    document, signature, certificate_pem = sealed
    try:
        certificate, signer = issued_by_ca(certificate_pem, kit.ca)
    except ValueError:
        raise refuse("its signer's certificate is not from this federation's CA") from None
    now = datetime.now(timezone.utc)
    if not at_any_time and not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise refuse(f"the certificate of {signer.name} is not valid now")
    if signer.role != "admin" or signer.federation != kit.federation:
        raise refuse(f"{signer.name} is a {signer.role} of {signer.federation}; {only}")
    key = certificate.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, document, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise refuse("its signature does not fit its content: it was changed on the way") from None
    try:
        body = json.loads(document)
        if body["version"] != 1 or canonical(body) != document:
            raise ValueError("another version or form")
        found = read(body, signer)
        federation, serial, issued = str(body["federation"]), str(body["signer"]["serial"]), float(body["issued"])
    except NONSENSE as error:
        raise refuse(f"its document is not readable: {error}") from None
    if federation != kit.federation:
        raise refuse(f"it is for the federation {federation}")
    if serial != signer.serial:
        raise refuse("its signer is not who it says")
    return found, issued


def canonical(document: Mapping[str, Any]) -> bytes:
    """The bytes that are signed.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
