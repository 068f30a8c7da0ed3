"""Whatever fails, ends or is refused on the way of a model through the server, nothing of it stays."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import until
from lone_hub import JOB, SIZE, acks, model, owned, sent, server, wire_of

from fl_runtime.blobs import of_bytes
from fl_runtime.errors import FlError, RefusedError, StorageError
from fl_runtime.filters.workshop import Workshop
from fl_runtime.hub.state import ANSWERED, REFUSED
from fl_runtime.proto import fedspan_pb2 as pb


def test_what_is_not_what_its_sender_named_is_not_kept(tmp_path: Path) -> None:
    with server(tmp_path, codecs=["quantize8"]) as made:
        made.open(made.call(np.ones(SIZE)))
        wire, form = wire_of(["quantize8"], tmp_path, model(np.linspace(0, 1, SIZE)))
        made.answer(f"{JOB}/0.0/site-1", wire, form=form, plain=b"\1" * 32)
        link = made.link()
        link.result(made.heard.results[0])
        until(lambda: made.hub.store.task(f"{JOB}/0.0/site-1").state == REFUSED)
        assert made.owners() == owned(
            "bundle", "new", "call:0:0", "call:0:0:about::1", "call:0:0:wire::1", f"task:{JOB}/0.0/site-1"
        )
        assert made.left_over() == []


def test_a_failing_filter_leaves_no_file(tmp_path: Path) -> None:
    filters = {way: [{"type": "clip_norm", "max_norm": -1}] for way in ("tasks", "results")}
    with server(tmp_path, filters={"server": filters}) as made:
        call = made.call(np.ones(SIZE))
        with pytest.raises(Exception, match="clip_norm failed"):
            made.hub.wires.prepare(made.job, call)
        made.hub.board.open(call, made.heard, dict)
        made.answer(f"{JOB}/0.0/site-1", model(np.ones(SIZE)))
        with pytest.raises(Exception, match="clip_norm failed"):
            made.hub.wires.plain(made.job, made.heard.results[0])
        assert made.owners() == owned("bundle", "new", "call:0:0", f"task:{JOB}/0.0/site-1")
        assert made.left_over() == []


@pytest.mark.parametrize("way", ["filters", "codecs"])
def test_a_disk_that_is_full_where_results_are_made_plain_refuses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("fl_runtime.patience.AGAIN_S", 0.05)
    results = {"server": {"results": [{"type": "clip_value", "limit": 0.5}]}}
    document: dict[str, Any] = {"filters": results} if way == "filters" else {"codecs": ["quantize8"]}
    with server(tmp_path, **document) as made:
        made.open(made.call(np.ones(SIZE)))
        wire, form = wire_of(["quantize8"], tmp_path, model(np.linspace(0, 1, SIZE)))
        if way == "filters":
            wire, form = model(np.ones(SIZE)), ""
        made.answer(f"{JOB}/0.0/site-1", wire, form=form)
        link, asked, told = made.link(), threading.Event(), threading.Event()
        monkeypatch.setattr(link, "_tell_result", lambda *_: told.set())

        def full(_: int) -> Any:
            asked.set()
            return contextlib.nullcontext(Path("/dev/full"))

        with monkeypatch.context() as disk:
            disk.setattr(made.hub.blobs, "spooled", full)
            link.result(made.heard.results[0])
            assert asked.wait(30)
        assert told.wait(30)
        assert made.hub.store.task(f"{JOB}/0.0/site-1").state == ANSWERED


@pytest.mark.parametrize("lie", ["content", "meta"])
def test_a_refused_inline_answer_leaves_no_file(tmp_path: Path, lie: str) -> None:
    with server(tmp_path) as made:
        session = made.connect()
        made.open(made.call(np.ones(SIZE)))
        data = model(np.arange(SIZE))
        blob = made.hub.blobs.put(data, "for its id")
        made.hub.blobs.drop_refs("for its id")
        made.hub.blobs.collect(0.0)
        content = pb.Payload(blob=b"\1" * 32 if lie == "content" else blob, length=len(data), inline=data)
        meta = b"[]" if lie == "meta" else b"{}"
        result = pb.TaskResult(job=JOB, task=f"{JOB}/0.0/site-1", meta=meta, payload=content)
        before = made.owners()
        made.hub.on_message(session, pb.ToHub(task_result=result))
        assert [ack.accepted for ack in acks(session)] == [False]
        assert made.owners() == before
        assert made.left_over() == []


def test_a_model_that_can_not_be_stored_before_its_job_is_over_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(tmp_path) as made:
        link = made.link()
        link._running.over = True
        file = made.hub.blobs.new_spool_file(0)
        file.write_bytes(model(np.ones(SIZE)))

        def fail(*_: object) -> None:
            raise StorageError("The disk is full")

        with monkeypatch.context() as full:
            full.setattr(made.hub.blobs, "register", fail)
            with pytest.raises(StorageError):
                link._do_blob({"file": str(file)}, b"")
        assert made.owners() == owned("bundle")
        assert made.left_over() == []


@pytest.mark.parametrize("codecs", [[], ["quantize8"]])
@pytest.mark.parametrize("left", ["statistics", {"type": "exclude", "variables": ["*"], "remove": True}])
def test_a_result_of_which_the_servers_filters_leave_no_model_brings_none(
    tmp_path: Path, left: Any, codecs: list[str]
) -> None:
    with server(tmp_path, filters={"server": {"results": [left]}}, codecs=codecs) as made:
        made.connect()
        made.open(made.call(np.ones(SIZE)))
        values = np.linspace(0, 1, SIZE)
        wire, form = wire_of(codecs, tmp_path, model(values)) if codecs else (model(values), "")
        made.answer(f"{JOB}/0.0/site-1", wire, form=form)
        for _ in range(2):  # the second time it is what was noted the first time
            blob, meta = made.hub.wires.plain(made.job, made.heard.results[0])
            assert blob is None
            assert ("statistics" in meta.get("meta", {})) == (left == "statistics")


def test_what_comes_whole_while_its_job_ends_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(tmp_path) as made:
        forget = made.hub.board.forget

        def meanwhile(job: str) -> None:
            forget(job)
            made.hub.blobs.put(model(np.ones(SIZE)), f"job:{JOB}:task:{JOB}/0.0/site-1")

        monkeypatch.setattr(made.hub.board, "forget", meanwhile)
        made.hub.jobs.end(JOB, "ABORTED", "enough")
        assert made.owners() == {f"job:{JOB}:bundle"}
        assert made.left_over() == []


@pytest.mark.parametrize("when", ["before", "while it is made"])
@pytest.mark.parametrize("way", ["filters", "codecs"])
def test_a_job_that_has_ended_is_given_nothing_more_and_no_process_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, when: str
) -> None:
    document: dict[str, Any] = {"codecs": ["quantize8"]}
    if way == "filters":
        document = {"filters": {"server": {"results": [{"type": "clip_value", "limit": 0.5}]}}}
    with server(tmp_path, **document) as made:
        made.open(made.call(np.ones(SIZE)))
        wire, form = (
            wire_of(["quantize8"], tmp_path, model(np.ones(SIZE))) if way == "codecs" else (model(np.ones(SIZE)), "")
        )
        made.answer(f"{JOB}/0.0/site-1", wire, form=form)
        job, task, link = made.job, made.heard.results[0], made.link()
        ask = Workshop.ask

        def slow(self: Workshop, request: Mapping[str, Any]) -> dict[str, Any]:
            reply = ask(self, request)
            made.hub.jobs.end(JOB, "ABORTED", "enough")
            return reply

        with monkeypatch.context() as now:
            if when == "before":
                made.hub.jobs.end(JOB, "ABORTED", "enough")
            else:
                now.setattr(Workshop, "ask", slow)
            with pytest.raises(FlError, match="The job is over"):
                made.hub.wires.plain(job, task)
        assert made.hub.wires.shops._shops == {}
        made.hub.board.judge(task.id, False, "The job is over")  # no fault of the site's
        link._running.over = True
        link._decoded(task)  # it waited behind others
        assert made.hub.store.task(task.id).state == ANSWERED
        assert made.owners() == {f"job:{JOB}:bundle"}
        assert made.left_over() == []


def test_what_a_jobs_process_or_a_site_still_brings_after_the_end_is_not_kept(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        session = made.connect()
        call, link = made.call(np.ones(SIZE)), made.link()
        made.open(call)
        made.hub.jobs.end(JOB, "ABORTED", "enough")
        with pytest.raises(RefusedError, match="The job is over"):
            link._do_blob({}, model(np.ones(SIZE)))
        made.open(call)
        data = model(np.arange(SIZE))
        content = pb.Payload(blob=of_bytes(data).id, length=len(data), inline=data)
        result = pb.TaskResult(job=JOB, task=f"{JOB}/0.0/site-1", meta=b"{}", payload=content)
        sent(session)
        made.hub.on_message(session, pb.ToHub(task_result=result))
        assert [message.result_ack.accepted for message in sent(session)] == [True]  # the site may forget it
        assert made.owners() == {f"job:{JOB}:bundle"}
        assert made.left_over() == []
