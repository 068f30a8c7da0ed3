"""Calls to sites, journalled by (round, index): after a crash the same call gets its recorded results, in the order in
which they were taken then, and only what was not finished is asked for again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_runtime.errors import FlError
from fl_runtime.workflow.link import Link
from fl_runtime.workflow.records import QuorumError, Result

log = logging.getLogger("fedspan.workflow")
Event = tuple[dict[str, Any], bytes]


class NotDeterministicError(FlError):
    """A replayed workflow does something else than before."""

    exit_code = 12


@dataclass(eq=False)
class OpenCall:
    """One broadcast, or a send to one site. `outcome` is there when it is closed."""

    index: int
    name: str
    judge: Callable[[Result], str | None]  # why a result does not count; None when it does
    on_result: Callable[[Result], None] | None = None
    on_closed: Callable[[OpenCall], None] | None = None
    results: dict[str, Result] = field(default_factory=dict)
    outcome: dict[str, Any] | None = None

    def used(self) -> list[Result]:
        """The results that count, in site-name order.

        Raises:
            QuorumError: they are too few.
        """
        assert self.outcome is not None
        if self.outcome["verdict"] == "fail":
            raise QuorumError("A round has too few results", why=self.outcome["why"])
        return [self.results[site] for site in sorted(self.outcome["used"]) if site in self.results]


class Calls:
    """All calls of one round. Results and closings are handed out one at a time, under `lock`."""

    def __init__(self, link: Link, orders: Sequence[tuple[int, Sequence[Sequence[Any]]]]) -> None:
        self.lock = threading.RLock()
        self.last_taken = time.monotonic()
        self.handing_out = False  # a callback runs
        self._link = link
        # What was taken before the crash, by round; site None: the call was closed.
        self._orders = {int(round_): [(int(index), site) for index, site in order] for round_, order in orders}
        self._order: list[tuple[int, str | None]] = []
        self._sites: list[str] = []
        self._held: dict[tuple[int, str | None], Event] = {}  # came before its turn in that order
        self._later: list[Event] = []  # not in that order: after it
        self._calls: dict[int, OpenCall] = {}
        self._round = 0
        self._index = 0
        self._taken = 0

    def begin(self, round_: int) -> None:
        """Another round: its calls count from 0."""
        with self.lock:
            self._round, self._index, self._taken = round_, 0, 0
            self._calls, self._held, self._later = {}, {}, []
            self._order = self._orders.pop(round_, [])

    # --- asking

    @property
    def round(self) -> int:
        """Under which calls are journalled now."""
        return self._round

    def next_index(self) -> int:
        with self.lock:
            self._index += 1
            return self._index - 1

    def sites(self) -> list[str]:
        """Who takes part now (in a replay: who did then). Only a change is journalled, so that it may be polled."""
        with self.lock:
            message = {"op": "sites", "round": self._round, "index": self._index, "known": self._sites}
            reply, _ = self._link.ask(message)
            if reply["changed"]:
                self._index += 1
                self._sites = list(reply["sites"])
            return list(self._sites)

    def recorded(self, name: str, value: Any) -> Any:
        """`value`, or in a replay what it was then. Plain data."""
        message = {"op": "record", "round": self._round, "index": self.next_index(), "name": name, "value": value}
        return self._link.ask(message)[0]["value"]

    def open(
        self,
        name: str,
        blob: str | None,
        meta: Mapping[str, Any],
        *,
        targets: Sequence[str] | None,
        settings: Mapping[str, Any],
        judge: Callable[[Result], str | None],
        on_result: Callable[[Result], None] | None = None,
        on_closed: Callable[[OpenCall], None] | None = None,
    ) -> OpenCall:
        """Push a task to sites. Nothing is waited for: see `wait` and `pump`."""
        with self.lock:
            call = OpenCall(self.next_index(), name, judge, on_result, on_closed)
            self._calls[call.index] = call
            message = {
                "op": "call",
                "round": self._round,
                "index": call.index,
                "name": name,
                "targets": list(targets) if targets is not None else None,
                "blob": blob,
                "meta": dict(meta),
                "settings": dict(settings),
            }
            self._link.post(message)
            return call

    def cancel(self, call: OpenCall, why: str) -> None:
        """Close it now with the results that are there."""
        if call.outcome is None:
            self._link.post({"op": "cancel", "round": self._round, "index": call.index, "why": why})

    def standing(self) -> list[OpenCall]:
        return [call for call in self._calls.values() if call.outcome is None]

    # --- waiting

    def wait(self, call: OpenCall) -> None:
        """Until it is closed; what comes for other calls is handed out meanwhile."""
        while call.outcome is None:
            self.pump(None)

    def pump(self, timeout: float | None, blocking: bool = False) -> bool:
        """Hand out the next result or closing; False when none comes within `timeout` seconds (None: for ever).

        Args:
            blocking: the caller does nothing else until something has been handed out.
        """
        with self.lock:
            self.last_taken = time.monotonic()
            while True:
                event = self._in_turn(blocking or timeout is None) or self._link.event(timeout)
                if event is None:
                    return False
                outer, self.handing_out = self.handing_out, True
                try:
                    if self._hand_out(*event):
                        return True
                finally:
                    self.handing_out = outer

    def _in_turn(self, blocking: bool) -> Event | None:
        """What is here already and has its turn."""
        if not self._order:
            return self._later.pop(0) if self._later else None
        index, site = self._order[0]
        if blocking and index not in self._calls and not self._closing():
            # nobody will make it, and nothing else has its turn before it
            raise NotDeterministicError(
                "The workflow is not deterministic",
                why=f"before the restart call {index} of round {self._round} had been made by now"
                + (f", and the result of {site} taken" if site else ""),
            )
        return self._held.pop(self._order[0], None)

    def _closing(self) -> bool:
        """A call whose results are all taken, but not its closing: without a place in the order, it may come now."""
        ahead = {index for index, _ in self._order}
        return any(call.index not in ahead for call in self.standing())

    def _hand_out(self, message: dict[str, Any], binary: bytes) -> bool:
        call = self._calls.get(message["index"])
        if call is None or message["round"] != self._round or call.outcome is not None:
            return False  # of a call that is over
        place = (call.index, message["site"] if message["event"] == "result" else None)
        if self._order and place != self._order[0]:
            if place in self._order:
                self._held[place] = (message, binary)
                return False
            if place[1] is not None or any(index == call.index for index, _ in self._order):
                self._later.append((message, binary))  # a closing comes after its results
                return False
        if self._order and place == self._order[0]:
            self._order.pop(0)
        if message["event"] == "result":
            return self._result(call, message, binary)
        self._closed(call, message)
        return True

    def _result(self, call: OpenCall, message: Mapping[str, Any], binary: bytes) -> bool:
        site = message["site"]
        if site in call.results:
            return False
        source = Path(message["file"]) if message.get("file") else (binary or None)
        result = Result(site, message["meta"], source, message.get("blob"))
        if not message["judged"]:
            why = call.judge(result)
            self._link.post({"op": "judge", "task": message["task"], "ok": why is None, "why": why or ""})
            if why is not None:
                log.warning("the result of %s is refused: %s", site, why)
                return True
        self._taken += 1
        call.results[site] = result
        if call.on_result is not None:
            call.on_result(result)
        return True

    def _closed(self, call: OpenCall, message: dict[str, Any]) -> None:
        if len(self.standing()) > 1:  # its place among the others' results must be known in a replay
            self._link.post({"op": "taken", "round": self._round, "index": call.index, "place": self._taken})
            self._taken += 1
        call.outcome = message
        if call.on_closed is not None:
            call.on_closed(call)
