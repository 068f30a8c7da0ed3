"""Who is calling: read from the certificate that TLS has verified, never from a message."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import cast

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID

ROLES = ("server", "site", "admin")


@dataclass(frozen=True)
class Identity:
    """A participant as its certificate names it. `serial` is lower-case hex."""

    name: str
    role: str
    federation: str
    serial: str
    admin_role: str = ""


def read_identity(certificate: x509.Certificate) -> Identity:
    """The subject's CN, OU, O and (admins) title.

    Raises:
        ValueError: the subject lacks one of them.
    """

    def one(oid: x509.ObjectIdentifier, required: bool = True) -> str:
        found = certificate.subject.get_attributes_for_oid(oid)
        if len(found) > 1 or (required and not found):
            raise ValueError(f"the certificate's subject has {len(found)} of {oid.dotted_string}")
        return str(found[0].value) if found else ""

    role = one(NameOID.ORGANIZATIONAL_UNIT_NAME)
    if role not in ROLES:
        raise ValueError(f"the certificate's role is {role!r}")
    return Identity(
        name=one(NameOID.COMMON_NAME),
        role=role,
        federation=one(NameOID.ORGANIZATION_NAME),
        serial=f"{certificate.serial_number:x}",
        admin_role=one(NameOID.TITLE, required=False),
    )


class Gate:
    """Authorizes every call by role; revoked serials are refused, whatever they ask."""

    def __init__(self, federation: str, revoked: Callable[[], Collection[str]] = tuple) -> None:
        self._federation = federation
        self._revoked = revoked
        self._known: dict[bytes, Identity] = {}
        self._lock = threading.Lock()

    def admit(self, context: grpc.ServicerContext, roles: Collection[str]) -> Identity:
        """The caller's identity; aborts the call when it may not make it."""
        auth = cast("Mapping[str, list[bytes]]", context.auth_context())
        pem = auth.get("x509_pem_cert", [b""])[0]
        try:
            identity = self._parse(pem)
        except ValueError as error:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"no usable client certificate: {error}")
        if identity.federation != self._federation:
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{identity.name} belongs to the federation {identity.federation!r}; this is {self._federation!r}",
            )
        if identity.serial in self._revoked():
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"the certificate of {identity.name} is revoked")
        if identity.role not in roles:
            wanted = " or ".join(sorted(roles))
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"{identity.name} is a {identity.role}; this call is for a {wanted}"
            )
        return identity

    def _parse(self, pem: bytes) -> Identity:
        with self._lock:
            known = self._known.get(pem)
        if known is None:
            known = read_identity(x509.load_pem_x509_certificate(pem))
            with self._lock:
                if len(self._known) > 4096:
                    self._known.clear()
                self._known[pem] = known
        return known
