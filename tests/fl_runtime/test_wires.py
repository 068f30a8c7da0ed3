"""Filters and codecs over a restart, a checkpoint, and from round to round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lone_hub import JOB, SIZE, model, owned, pushed, server, wire_of

from fl_runtime.codecs.decode import decode
from fl_runtime.errors import StorageError
from fl_runtime.hub.job_process import Running
from fl_runtime.hub.recorder import Recorder
from fl_runtime.hub.state import RUNNING
from fl_runtime.models.tensors import TensorFile
from fl_runtime.proto import fedspan_pb2 as pb

CLIP = {"server": {"tasks": [{"type": "clip_value", "limit": 0.25}]}}


@pytest.mark.parametrize("limit", [0.25, 10])
def test_a_restarted_server_pushes_the_filtered_model_before_the_jobs_process_is_back(
    tmp_path: Path, limit: float
) -> None:
    filters = {"server": {"tasks": [{"type": "clip_value", "limit": limit}]}}
    with server(tmp_path, filters=filters) as made:
        made.open(made.call(np.ones(SIZE)))
        made.restart()
        (task,) = pushed(made.connect())
        assert made.values(task.payload.blob).max() == min(1, limit)
        assert made.may_read(task.payload.blob)


def test_under_a_filter_the_raw_model_may_not_be_read(tmp_path: Path) -> None:
    with server(tmp_path, filters=CLIP) as made:
        call = made.call(np.ones(SIZE))
        made.open(call)
        assert not made.may_read(call.payload)


def test_a_task_whose_model_is_not_filtered_yet_waits_for_that(tmp_path: Path) -> None:
    with server(tmp_path, filters=CLIP) as made:
        call = made.call(np.ones(SIZE))
        made.hub.board.open(call, made.heard, dict)
        session = made.connect()
        assert pushed(session) == []
        made.open(call)
        (task,) = pushed(session)
        assert made.values(task.payload.blob).max() == 0.25


def test_a_filter_that_leaves_no_model_sends_none(tmp_path: Path) -> None:
    with server(tmp_path, filters={"server": {"tasks": ["statistics"]}}) as made:
        session = made.connect()
        call = made.call(np.ones(SIZE))
        link = made.link()
        made.hub.store.set_job(JOB, RUNNING)
        link._do_call(
            {"round": 0, "index": 0, "name": "train", "targets": ["site-1"], "meta": {}, "settings": {}}
            | {"blob": call.payload.hex()},
            b"",
        )
        assert pushed(session) == []
        assert "left no model" in made.job.cause


def test_a_lossy_difference_that_was_under_way_at_a_restart_counts(tmp_path: Path) -> None:
    with server(tmp_path, codecs=["delta", "quantize8"]) as made:
        session = made.connect()
        made.open(made.call(np.linspace(-1, 1, SIZE)))
        (task,) = pushed(session)
        assert task.payload.form == "quantize8"
        decode(made.hub.blobs.read(task.payload.blob), tmp_path / "base", 1 << 30)  # what the site begins with
        base = task.payload.plain
        trained = model(TensorFile(tmp_path / "base").array("w") + 0.5)
        wire, form = wire_of(["delta", "quantize8"], tmp_path, trained, base=tmp_path / "base", base_id=base.hex())
        made.restart()
        assert made.may_read(task.payload.blob)
        made.answer(task.task, wire, form=form, base=base)
        answered = made.hub.store.task(task.task)
        blob, _ = made.hub.wires.plain(made.job, answered)
        assert np.allclose(made.values(blob), np.linspace(-1, 1, SIZE) + 0.5, atol=0.02)


def test_what_a_site_holds_is_known_after_a_restart(tmp_path: Path) -> None:
    with server(tmp_path, codecs=["delta", "quantize8"]) as made:
        session = made.connect()
        made.open(made.call(np.linspace(-1, 1, SIZE)))
        (task,) = pushed(session)
        made.answer(task.task, model(np.ones(SIZE)))
        held = pb.TaskResult(job=JOB, task=task.task, holds=task.payload.plain)
        made.hub.wires.noted(made.hub.store.task(task.task), held, {})
        made.restart()
        session = made.connect()
        made.open(made.call(np.linspace(-1, 1.1, SIZE), round_=1))
        (task,) = [entry for entry in pushed(session) if entry.task.startswith(f"{JOB}/1.0/")]
        assert task.payload.form == "delta,quantize8"
        assert task.payload.base == held.holds


def test_what_was_pushed_may_be_read_after_a_checkpoint(tmp_path: Path) -> None:
    """A controller without rounds stores each model that it sends, right after it has sent it."""
    with server(tmp_path, codecs=["quantize8"]) as made:
        session = made.connect()
        call = made.call(np.linspace(0, 1, SIZE))
        made.open(call)
        Recorder(made.hub, Running(made.job, made.root, 1)).checkpoint({"model": call.payload.hex(), "metrics": {}})
        (task,) = pushed(session)
        assert task.payload.form == "quantize8"
        assert made.may_read(task.payload.blob)
        session = made.connect()  # again: it gets the same, not the plain one
        assert pushed(session)[0].payload.blob == task.payload.blob


def test_what_is_open_may_be_read_after_a_round_is_committed(tmp_path: Path) -> None:
    with server(tmp_path, filters=CLIP, codecs=["quantize8"]) as made:
        session = made.connect()
        made.open(made.call(np.linspace(0, 1, SIZE)))
        closed = made.call(np.linspace(0, 2, SIZE), index=1)
        made.open(closed)
        made.hub.board.cancel((JOB, 0, 1), "enough")
        recorder = Recorder(made.hub, Running(made.job, made.root, 1))
        recorder.commit({"round": 0, "model": None, "metrics": {}, "tensors": {}, "state": {}})
        made.hub.blobs.collect(0.0)
        first = pushed(session)[0]
        assert made.may_read(first.payload.blob)
        assert made.hub.blobs.has(first.payload.blob)
        assert not [owner for owner in made.owners() if owner.startswith(f"job:{JOB}:call:0:1")]


def test_a_site_that_could_not_decode_one_round_is_sent_the_next_one_encoded(tmp_path: Path) -> None:
    with server(tmp_path, codecs=["quantize8"]) as made:
        session = made.connect()
        made.open(made.call(np.linspace(0, 1, SIZE)))
        (task,) = pushed(session)
        message = pb.ToHub(need_full=pb.NeedFull(job=JOB, task=task.task))
        made.hub.on_message(session, message)
        (again,) = pushed(session)
        assert (again.task, again.payload.form) == (task.task, "")
        made.open(made.call(np.linspace(0, 2, SIZE), round_=1))
        assert [entry.payload.form for entry in pushed(session)] == ["quantize8"]


def test_an_outgrown_journal_lets_go_of_what_was_encoded_and_decoded(tmp_path: Path) -> None:
    filters = {"server": {"results": [{"type": "clip_value", "limit": 0.1}]}}
    with server(tmp_path, codecs=["quantize8"], filters=filters) as made:
        made.connect()
        made.open(made.call(np.linspace(0, 1, SIZE)))
        wire, form = wire_of(["quantize8"], tmp_path, model(np.linspace(0, 1, SIZE)))
        made.answer(f"{JOB}/0.0/site-1", wire, form=form)
        made.hub.wires.plain(made.job, made.heard.results[0])
        made.hub.board.judge(f"{JOB}/0.0/site-1", True, "")
        Recorder(made.hub, Running(made.job, made.root, 1)).outgrown({"round": 0, "closed": [0]})
        assert made.owners() == owned("bundle")


def test_a_round_that_could_not_be_stored_at_first_still_tells_what_it_weighed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(tmp_path, codecs=["quantize8"]) as made:
        made.connect()
        made.open(made.call(np.linspace(0, 1, SIZE)))
        recorder = Recorder(made.hub, Running(made.job, made.root, 1))
        message = {"round": 0, "model": None, "metrics": {}, "tensors": {}, "state": {}}
        with monkeypatch.context() as full:

            def fail(_: object) -> None:
                raise StorageError("The disk is full")

            full.setattr(made.hub.store, "commit", fail)
            with pytest.raises(StorageError):
                recorder.commit(message)
        recorder.commit(message)
        recorder.commit({**message, "round": 1})
        first, second = (entry.metrics for entry in made.hub.store.boundaries(JOB))
        assert first["wire"]["tasks"]["ratio"] < 0.3
        assert "wire" not in second
