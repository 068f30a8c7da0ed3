"""Who is calling, and may they: read from the certificate that TLS has verified, never from a message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import cast

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID

from fl_runtime.names import BULK_STREAMS, CALLS_EACH, SPARE_CALLS

ROLES = ("server", "site", "admin")


@dataclass(frozen=True)
class Identity:
    """A participant as its certificate names it. `serial` is lower-case hex, `not_after` in Unix seconds."""

    name: str
    role: str
    federation: str
    serial: str
    admin_role: str = ""
    not_after: float = field(default=float("inf"), compare=False)


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
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def issued_by_ca(pem: bytes, ca: bytes) -> tuple[x509.Certificate, Identity]:
    """A certificate of this CA (both PEM), and whom it names. Its time is not looked at.

    Raises:
        ValueError: it is none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        identity = read_identity(certificate)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
    except Exception as error:  # of many families, for what may be broken in a certificate
        raise ValueError(f"not a certificate of this CA: {error!r}") from None
    return certificate, identity


class Gate:
    """Every call passes here: by role, by certificate (revoked, expired), and only so many at once.

    The limit is sized from the federation: two calls for each site that is known (its stream, and a transfer), the bulk
    streams, and 32 to spare. A site that connects for the first time raises it, so that no federation is too large for
    it. What is over the limit is refused at once (RESOURCE_EXHAUSTED) and may be tried again; one participant alone
    can't use it up.

    Args:
        revoked: whether a serial is revoked. Asked at each call; `cancel` ends what runs already.
        sites: names of the sites that are known from earlier.
        bulk: bulk streams at once.
    """

    def __init__(
        self,
        federation: str,
        revoked: Callable[[str], bool] = lambda serial: False,
        sites: Iterable[str] = (),
        bulk: int = BULK_STREAMS,
    ) -> None:
        self._federation = federation
        self._revoked = revoked
        self._sites = set(sites)
        self._room = bulk + SPARE_CALLS
        self._known: dict[bytes, Identity] = {}
        self._running: dict[grpc.ServicerContext, Identity] = {}
        self._each: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def limit(self) -> int:
        """Calls at once."""
        return 2 * len(self._sites) + self._room

    @property
    def running(self) -> int:
        """Calls that run now."""
        return len(self._running)

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
        if identity.role not in roles:
            wanted = " or ".join(sorted(roles))
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"{identity.name} is a {identity.role}; this call is for a {wanted}"
            )
        # Noted first and judged then: a revocation that comes in between finds the call and cancels it.
        why_not = self._note(context, identity)
        if why_not:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why_not)
        if self._revoked(identity.serial):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"the certificate of {identity.name} is revoked")
        if time.time() > identity.not_after:
            ended = datetime.fromtimestamp(identity.not_after, timezone.utc)
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"the certificate of {identity.name} has expired on {ended:%Y-%m-%d}"
            )
        return identity

    def _note(self, context: grpc.ServicerContext, identity: Identity) -> str:
        with self._lock:
            if identity.role == "site":
                self._sites.add(identity.name)
            if self._each.get(identity.name, 0) >= CALLS_EACH:
                return f"{identity.name} has {CALLS_EACH} calls open already"
            if len(self._running) >= self.limit:
                return f"the server is busy with {len(self._running)} calls; try again"
            self._running[context] = identity
            self._each[identity.name] = self._each.get(identity.name, 0) + 1
        if not context.add_callback(lambda: self._forget(context)):
            self._forget(context)  # it is over already
        return ""

    def _forget(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            identity = self._running.pop(context, None)
            if identity is not None:
                self._each[identity.name] -= 1
                if not self._each[identity.name]:
                    del self._each[identity.name]

    def cancel(self, serials: Collection[str]) -> None:
        """End every call, of whatever kind, of these certificates."""
        self._cancel(lambda identity: identity.serial in serials)

    def sweep(self) -> None:
        """End the calls of certificates that have expired meanwhile."""
        now = time.time()
        self._cancel(lambda identity: now > identity.not_after)

    def _cancel(self, hit: Callable[[Identity], bool]) -> None:
        with self._lock:
            contexts = [context for context, identity in self._running.items() if hit(identity)]
        for context in contexts:
            context.cancel()  # type: ignore[no-untyped-call]  # the stubs forgot to type it

    def who(self, context: grpc.ServicerContext) -> Identity | None:
        """Whose call this is, once it was admitted."""
        with self._lock:
            return self._running.get(context)

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
