"""Orders on the server: a lead's, passed on to the sites that they name; those to the server itself are done here."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from fl_runtime.errors import RefusedError
from fl_runtime.kit import SERVER
from fl_runtime.orders import RESTART, RESTART_CODE, SignedOrder, UsedOrders, check_operator, open_order
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.identity import Identity

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")
ANSWER_S = 10.0  # for the sites to say yes or no
_REPLY_S = 0.5  # for the admin's answer to be on its way before the server stops
_SINCE_MAJOR = 2  # of the protocol: older sites know no orders


class HubOrders:
    """Waits for the answers of the sites; each is told apart by the order's id."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._used = UsedOrders(hub.state / "orders.json")
        self._answers: dict[str, dict[str, pb.OrderAnswer]] = {}
        self._condition = threading.Condition()

    def command(self, identity: Identity, order: pb.Order) -> dict[str, dict[str, Any]]:
        """Pass an order on; name -> {accepted, why}.

        Raises:
            RefusedError: it is not the caller's own, or not to be read.
        """
        opened = open_order(self._hub.kit, order.document, order.signature, order.certificate)
        if (opened.signer.name, opened.signer.serial) != (identity.name, identity.serial):
            raise RefusedError("The order was signed by another", why=opened.signer.name)
        told: dict[str, dict[str, Any]] = {}
        asked: list[str] = []
        with self._condition:
            self._answers[opened.id] = {}
        try:
            for name in opened.targets:
                if name == SERVER:
                    continue
                session = self._hub.sessions.get(name)
                if session is None:
                    told[name] = {"accepted": False, "why": "it is not connected"}
                elif session.major < _SINCE_MAJOR:
                    told[name] = {"accepted": False, "why": f"it runs fedspan {session.version}, which takes no orders"}
                else:
                    session.send(order=order)
                    asked.append(name)
            told.update(self._collect(opened, asked))
        finally:
            with self._condition:
                self._answers.pop(opened.id, None)
        if SERVER in opened.targets:
            told[SERVER] = self._own(opened)
        log.warning("%s by %s: %s", opened.action, identity.name, told)
        return told

    def answered(self, name: str, answer: pb.OrderAnswer) -> None:
        with self._condition:
            if answer.order in self._answers:
                self._answers[answer.order][name] = answer
                self._condition.notify_all()

    def _collect(self, order: SignedOrder, asked: list[str]) -> dict[str, dict[str, Any]]:
        with self._condition:
            answers = self._answers[order.id]
            self._condition.wait_for(lambda: all(name in answers for name in asked), ANSWER_S)
            return {
                name: {"accepted": answers[name].accepted, "why": answers[name].why}
                if name in answers
                else {"accepted": False, "why": f"it did not answer within {ANSWER_S:.0f} s"}
                for name in asked
            }

    def _own(self, order: SignedOrder) -> dict[str, Any]:
        try:
            check_operator(self._hub.kit, order, self._hub.revocations.is_revoked(order.signer.serial))
            if not self._used.use(order):
                raise RefusedError("The order is refused", why="it was carried out before")
        except RefusedError as error:
            return {"accepted": False, "why": error.why}
        code = RESTART_CODE if order.action == RESTART else 0

        def end() -> None:
            time.sleep(_REPLY_S)
            self._hub.ordered(code)

        threading.Thread(target=end, name="order", daemon=True).start()
        return {"accepted": True, "why": ""}
