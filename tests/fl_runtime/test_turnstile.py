"""Who may move bulk: a few at once, fairly; waiting costs nobody's deadline, and who hangs up leaves its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from federation import PATIENCE_S, until

from fl_runtime.hub.turnstile import HungUpError, Turnstile


class Crowd:
    """Threads that enter a turnstile and stay until they are told to leave."""

    def __init__(self, places: int) -> None:
        self.turnstile = Turnstile(places)
        self.inside: list[str] = []
        self.hung_up: list[str] = []
        self._leave: dict[str, threading.Event] = {}
        self._gone: set[str] = set()
        self._threads: list[threading.Thread] = []

    def come(self, ticket: str) -> None:
        """`who` is what stands before the dash. Returns once it is inside or queued."""
        who = ticket.partition("-")[0]
        self._leave[ticket] = threading.Event()

        def visit() -> None:
            try:
                with self.turnstile.enter(who, lambda: ticket not in self._gone):
                    self.inside.append(ticket)
                    self._leave[ticket].wait(PATIENCE_S)
                    self.inside.remove(ticket)
            except HungUpError:
                self.hung_up.append(ticket)

        before = len(self.inside) + len(self.turnstile._queue)
        self._threads.append(threading.Thread(target=visit, daemon=True))
        self._threads[-1].start()
        until(lambda: len(self.inside) + len(self.turnstile._queue) > before)

    def leave(self, ticket: str) -> None:
        self._leave[ticket].set()
        until(lambda: ticket not in self.inside)

    def hang_up(self, ticket: str) -> None:
        self._gone.add(ticket)
        until(lambda: ticket in self.hung_up)

    def close(self) -> None:
        for event in self._leave.values():
            event.set()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    made = Crowd(2)
    yield made
    made.close()


def test_a_site_with_one_transfer_is_not_kept_out_by_one_with_many(crowd: Crowd) -> None:
    for ticket in ("a-1", "a-2", "a-3", "a-4", "b-1"):
        crowd.come(ticket)
    assert sorted(crowd.inside) == ["a-1", "a-2"]
    crowd.leave("a-1")
    until(lambda: sorted(crowd.inside) == ["a-2", "b-1"], what="b goes before a's third, though it came later")
    crowd.leave("b-1")
    until(lambda: sorted(crowd.inside) == ["a-2", "a-3"])


def test_time_in_the_queue_is_counted_for_those_who_only_wait(crowd: Crowd) -> None:
    began = time.monotonic()
    for ticket in ("a-1", "b-1", "c-1", "a-2"):
        crowd.come(ticket)
    mostly = {who: crowd.turnstile.queued(who) for who in "ab"}
    until(lambda: crowd.turnstile.queued("c") > 0.3)
    assert crowd.turnstile.queued("c") <= time.monotonic() - began
    assert {who: crowd.turnstile.queued(who) for who in "ab"} == mostly  # one of its transfers runs
    crowd.leave("a-1")
    until(lambda: "c-1" in crowd.inside)
    counted = crowd.turnstile.queued("c")
    time.sleep(0.2)
    assert crowd.turnstile.queued("c") == counted


def test_who_hangs_up_in_the_queue_leaves_it(crowd: Crowd) -> None:
    for ticket in ("a-1", "b-1", "c-1", "d-1"):
        crowd.come(ticket)
    crowd.hang_up("c-1")
    crowd.leave("a-1")
    until(lambda: sorted(crowd.inside) == ["b-1", "d-1"])
    assert crowd.hung_up == ["c-1"]
