"""Plain data that fits into no message: told to whom it concerns, and no link breaks of it."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from door import Door, Service
from lone_hub import JOB, SIZE, model, pushed, server
from test_site_wires import site

from fl_runtime import localsock
from fl_runtime.agent.clients import _Client
from fl_runtime.agent.journal import ASSIGNED, DONE
from fl_runtime.errors import ProtocolError
from fl_runtime.names import PLAIN_LIMIT
from fl_runtime.proto import fedspan_pb2 as pb

MUCH = {"meta": {"table": "x" * PLAIN_LIMIT}}


def test_a_message_of_more_than_grpcs_own_limit_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = b"x" * (5 * 1024 * 1024)
    monkeypatch.setattr(Service, "ask", lambda *_: pb.Answer(document=document))
    door = Door(tmp_path)
    try:
        with door.stub("site-1") as stub:
            assert stub.ask(pb.Question(), timeout=60).document == document
    finally:
        door.close()


@pytest.mark.parametrize("size", ["too large", "as large as may be"])
def test_a_task_whose_plain_data_no_site_could_take_fails_its_job_with_that_cause(tmp_path: Path, size: str) -> None:
    with server(tmp_path) as made:
        session = made.connect()
        link = made.link()
        blob = made.hub.blobs.put(model(np.zeros(SIZE)), f"job:{JOB}:new")
        meta = MUCH if size == "too large" else {"meta": {"table": "x" * (PLAIN_LIMIT - 30)}}
        message = {"op": "call", "targets": ["site-1"], "round": 0, "index": 0, "name": "train", "settings": {}}
        link._handle(link._do_call, {**message, "meta": meta, "blob": blob.hex()}, b"")
        job = made.hub.store.job(JOB)
        assert job is not None
        if size == "too large":
            assert job.state == "FAILED"
            assert "The plain data of the task train of round 0 is too large to be sent: 3.1 MB" in job.cause
            assert not pushed(session)
        else:
            assert job.state == "RUNNING"
            assert len(pushed(session)) == 1


def test_a_result_whose_plain_data_is_too_large_is_an_error_for_the_script_and_the_server(tmp_path: Path) -> None:
    said: list[dict[str, Any]] = []
    with site(tmp_path) as made:
        task = made.task(ASSIGNED, np.zeros(SIZE))
        agent: Any = SimpleNamespace(journal=made.journal, results=SimpleNamespace(upload=lambda: None))
        run: Any = SimpleNamespace(epoch=1, job=JOB, over=False, answered=lambda _: None)
        connection: Any = SimpleNamespace(send=lambda message, _=b"": said.append(message))
        _Client(agent, connection, {"job": JOB, "epoch": 1})._result(run, {"task": task.id, "meta": MUCH}, b"")
        assert len(said) == 1
        assert "The plain data of the result of t is too large to be sent: 3.1 MB" in said[0]["error"]
        found = made.journal.task(task.id)
        assert found is not None
        assert (found.state, found.error, found.answer) == (DONE, said[0]["error"], {})


def test_what_a_filter_makes_too_large_does_not_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with site(tmp_path, filters={"results": [{"type": "clip_value", "limit": 0.5}]}) as made:
        task = made.task(DONE, np.zeros(SIZE))
        monkeypatch.setattr(made.shaping._chains, "run", lambda *_: ([], True, MUCH))
        made.shaping.shape(task)
        assert "behind the filters is too large" in made.shaping.outgoing(task).error


def test_a_local_frame_that_the_other_side_would_not_take_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hang up, and be sent the same again when the connection is taken up."""
    monkeypatch.setattr(localsock, "_MAX_JSON", 1000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = localsock.Connection(ours)
        with pytest.raises(ProtocolError, match="too large"):
            connection.send({"table": "x" * 1000})
        connection.send({"table": "x"})
        assert localsock.Connection(theirs).receive() == ({"table": "x"}, b"")
