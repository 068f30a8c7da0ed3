"""Orders: what an admin tells a site (or the server) to do. The server passes them on and can't make one.

Its document (fl_runtime/signed.py) has its own keys order (`restart` or `shutdown`), targets and id: never to be taken
for a job's envelope, whose keys differ. Whoever is ordered checks it against its own CA and policy, and does what it
says at most once.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_runtime import signed
from fl_runtime.durable import write_whole
from fl_runtime.errors import NONSENSE, RefusedError
from fl_runtime.kit import Kit
from fl_runtime.names import is_participant_name
from fl_runtime.wire.identity import Identity

RESTART, SHUTDOWN = "restart", "shutdown"
ACTIONS = (RESTART, SHUTDOWN)
VALID_S = 600.0  # between giving an order and its arrival, a wrong clock included
RESTART_CODE = 86  # a process that ends with it wants to be started again; supervisors do that


@dataclass(frozen=True)
class SignedOrder:
    """A checked order."""

    id: str
    action: str
    targets: tuple[str, ...]
    not_after: float
    signer: Identity


def seal_order(kit: Kit, action: str, targets: Sequence[str]) -> tuple[bytes, bytes, bytes]:
    """Sign with an admin's kit: (document, signature, certificate PEM)."""
    body = {"order": action, "targets": sorted(set(targets)), "id": secrets.token_hex(16)}
    return signed.sign(kit, body, VALID_S)


def open_order(kit: Kit, document: bytes, signature: bytes, certificate_pem: bytes) -> SignedOrder:
    """Check signature, signer, federation and time against this kit's CA.

    Raises:
        RefusedError: with the reason.
    """

    def refuse(why: str) -> RefusedError:
        return RefusedError("The order is refused", participant=kit.name, why=why, next_step="fedspan site list")

    def read(body: Mapping[str, Any], signer: Identity) -> SignedOrder:
        return SignedOrder(
            id=str(body["id"]),
            action=str(body["order"]),
            targets=tuple(str(target) for target in body["targets"]),
            not_after=float(body["not_after"]),
            signer=signer,
        )

    sealed = (document, signature, certificate_pem)
    order, issued = signed.check(kit, sealed, read, refuse, "only admins give orders")
    if order.action not in ACTIONS or not all(is_participant_name(target) for target in order.targets):
        raise refuse(f"{order.action!r} to {', '.join(order.targets)} is no order")
    if time.time() > order.not_after or order.not_after > issued + VALID_S:
        raise refuse("it is too old: it was to be carried out within ten minutes")
    if issued > time.time() + VALID_S:
        raise refuse("it is from the future: check this machine's clock")
    return order


def check_operator(kit: Kit, order: SignedOrder, revoked: bool) -> None:
    """Target, revocation, and `operators` of local/policy.yml (admin roles, e-mail addresses, any; default: lead).

    Raises:
        RefusedError: with the reason.
    """
    signer, allowed = order.signer, kit.policy().operators
    why = None
    if kit.name not in order.targets:
        why = "it is not meant for this participant"
    elif revoked:
        why = f"the certificate of {signer.name} is revoked"
    elif not {signer.name, signer.admin_role, "any"} & set(allowed):
        who = f"{signer.name} ({signer.admin_role or 'admin'})"
        why = f"{who} may not order this here; local/policy.yml allows: " + (", ".join(allowed) or "nobody")
    if why is not None:
        raise RefusedError("The order is refused", participant=kit.name, why=why, next_step="fedspan site list")


class UsedOrders:
    """Ids of orders that were carried out, on disk: none is carried out twice, nor any that can't be looked up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def use(self, order: SignedOrder) -> bool:
        """Note it, durably; False when it was used before.

        Raises:
            RefusedError: what was used before can't be read, or this one not be noted.
        """

        def refuse(why: str) -> RefusedError:
            return RefusedError(
                "The order is refused",
                why=f"{self._path}, where orders are noted, {why}",
                next_step=f"wait {VALID_S / 60:.0f} minutes, when all that it knew are too old: rm {self._path}",
            )

        with self._lock:
            try:
                known = {str(key): float(value) for key, value in json.loads(self._path.read_bytes()).items()}
            except FileNotFoundError:
                known = {}
            except (OSError, *NONSENSE) as error:
                raise refuse(f"can't be read: {error}") from None
            if order.id in known:
                return False
            now = time.time()
            known = {key: until for key, until in known.items() if until > now}
            known[order.id] = order.not_after
            try:
                write_whole(self._path, json.dumps(known).encode())
            except OSError as error:
                raise refuse(f"can't be written: {error}") from None
            return True
