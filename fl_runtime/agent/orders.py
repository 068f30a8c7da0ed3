"""Orders on a site: may this admin have it restarted or shut down? The site's policy decides, not the server."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_runtime.errors import RefusedError
from fl_runtime.kit import Kit
from fl_runtime.orders import RESTART, RESTART_CODE, SignedOrder, UsedOrders, check_operator, open_order
from fl_runtime.proto import fedspan_pb2 as pb

log = logging.getLogger("fedspan.agent")
_ANSWER_S = 0.3  # for the answer to be on its way


class Orders:
    """Takes orders from the link. `stop(code)` ends this process: its supervisor starts it again, or does not.

    Args:
        answer: sends a message to the server.
        is_revoked: whether a serial is on the list of revoked certificates.
    """

    def __init__(
        self,
        kit: Kit,
        state: Path,
        answer: Callable[..., Any],
        stop: Callable[[int], None],
        is_revoked: Callable[[str], bool],
    ) -> None:
        self._kit = kit
        self._used = UsedOrders(state / "orders.json")
        self._answer = answer
        self._stop = stop
        self._is_revoked = is_revoked

    def take(self, order: pb.Order) -> None:
        """Check it, note its id, answer, and do it: an order that comes again does nothing more."""
        opened: SignedOrder | None = None
        try:
            opened = open_order(self._kit, order.document, order.signature, order.certificate)
            check_operator(self._kit, opened, self._is_revoked(opened.signer.serial))
            if not self._used.use(opened):
                raise RefusedError("The order is refused", why="it was carried out before")
        except RefusedError as error:
            log.warning("an order is refused: %s", error.why)
            name = opened.id if opened is not None else _claimed_id(order)
            self._answer(order_answer=pb.OrderAnswer(order=name, accepted=False, why=error.why or error.what))
            return
        log.warning("%s: by order of %s", opened.action, opened.signer.name)
        self._answer(order_answer=pb.OrderAnswer(order=opened.id, accepted=True))
        code = RESTART_CODE if opened.action == RESTART else 0

        def end() -> None:
            time.sleep(_ANSWER_S)
            self._stop(code)

        threading.Thread(target=end, name="order", daemon=True).start()


def _claimed_id(order: pb.Order) -> str:
    """What a refused order says its id is, so that whoever waits for the answer gets it."""
    try:
        return str(json.loads(order.document)["id"])[:64]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
