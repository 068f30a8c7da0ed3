"""A site that comes back hears that its job is over, however long it was away and however fast it speaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from federation import until
from lone_hub import JOB, Server, sent, server

from fl_runtime.hub.service import HubService
from fl_runtime.hub.state import ABORTED
from fl_runtime.names import FEATURES, PROTOCOL_MAJOR, now_ms
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.identity import Identity

STILL_AT_IT = pb.SiteState(job=JOB, state="running")


def stops(messages: list[pb.ToParticipant]) -> list[tuple[str, str, str]]:
    found = [message.job_stop for message in messages if message.WhichOneof("body") == "job_stop"]
    return [(stop.job, stop.state, stop.why) for stop in found]


@pytest.mark.parametrize("state", ["accepted", "running", "invited"])
def test_a_job_that_ended_meanwhile_is_stopped_there_whatever_was_known_of_it(tmp_path: Path, state: str) -> None:
    with server(tmp_path) as made:
        made.hub.store.set_site(JOB, "site-1", state)
        made.hub.jobs.end(JOB, ABORTED, "by ana")
        session = made.connect()
        made.hub.jobs.site_state("site-1", STILL_AT_IT)
        assert stops(sent(session)) == [(JOB, ABORTED, "by ana")]


def test_a_job_that_was_deleted_meanwhile_is_stopped_too(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        made.hub.jobs.end(JOB, ABORTED, "by ana")
        made.hub.store.delete_job(JOB)
        session = made.connect()
        made.hub.jobs.site_state("site-1", STILL_AT_IT)
        assert stops(sent(session)) == [(JOB, "", "over")]


def test_a_job_that_has_not_ended_is_not_stopped(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        session = made.connect()
        made.hub.jobs.site_state("site-1", STILL_AT_IT)  # it waits for room on the server, as nothing runs of it here
        assert stops(sent(session)) == []


def test_what_a_site_says_in_the_moment_of_its_welcome_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(tmp_path) as made:
        made.hub.jobs.end(JOB, ABORTED, "by ana")
        _late(made, monkeypatch)
        heard: list[pb.ToParticipant] = []
        over = threading.Event()
        context: Any = SimpleNamespace(peer=lambda: "a", add_callback=lambda _: True)
        stream = HubService(made.hub).connect(_speaks(over), context)
        reader = threading.Thread(target=lambda: heard.extend(iter(stream)), daemon=True)
        reader.start()
        try:
            until(lambda: made.hub.sessions.get("site-1"))
            until(lambda: stops(heard) or len(heard) > 1 or not reader.is_alive(), 5)
        finally:
            over.set()
        reader.join(30)
        assert heard[0].WhichOneof("body") == "welcome"
        assert stops(heard) == [(JOB, ABORTED, "by ana")]


def _late(made: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is slow between its Welcome and the site's place in the register."""
    enter = made.hub.sessions.enter

    def slowly(session: Any) -> None:
        time.sleep(0.3)
        enter(session)

    monkeypatch.setattr(made.hub.gate, "admit", lambda *_: Identity("site-1", "site", "digits", "1"))
    monkeypatch.setattr(made.hub.sessions, "enter", slowly)


def _speaks(over: threading.Event) -> Iterator[pb.ToHub]:
    """A site that says at once what it is at."""
    yield pb.ToHub(hello=pb.Hello(major=PROTOCOL_MAJOR, features=FEATURES, clock_ms=now_ms(), version="0"))
    yield pb.ToHub(site_state=STILL_AT_IT)
    over.wait(60)
