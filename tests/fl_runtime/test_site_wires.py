"""Filters and codecs at a site: what fails, or is not wanted any more, leaves nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import TestCA
from lone_hub import JOB, SIZE, left_over, model, owned, owners, wire_of

from fl_runtime.agent.journal import ASSIGNED, DONE, Journal, TaskRow
from fl_runtime.agent.shaping import Shaping
from fl_runtime.errors import DiskFullError, StorageError
from fl_runtime.job.spec import parse_spec
from fl_runtime.kit import read_kit
from fl_runtime.names import FEATURES
from fl_runtime.proto import fedspan_pb2 as pb


class Site:
    """A site's part: its journal, and what it does with results and tasks; no link, no scripts."""

    def __init__(self, root: Path, **document: Any) -> None:
        kit = read_kit(TestCA().kit(root / "kit", "site-1", "site", port=1))
        (root / "state").mkdir()
        spec = parse_spec({"name": "x", "script": "train.py", "workflow": {"type": "fedavg", "rounds": 1}, **document})
        self.journal = Journal(root / "state")
        self.journal.add_job(JOB, b"", b"", spec.document(), "accepted", "")
        self.shaping = Shaping(self.journal, kit, root / "state", lambda: frozenset(FEATURES))

    def task(self, state: str, values: np.ndarray) -> TaskRow:
        """A task that brought zeros; where it is done, with these values as its result."""
        payload = self.journal.blobs.put(model(np.zeros(SIZE)), f"job:{JOB}:task:t:payload")
        task = self.journal.assign(TaskRow("t", JOB, 1, "train", {}, payload, 4 * SIZE, state))
        if state == DONE:
            result = self.journal.blobs.put(model(values), f"job:{JOB}:task:t:result")
            self.journal.db.run("UPDATE tasks SET result = ?, answer = '{}'", result)
        found = self.journal.task(task.id)
        assert found is not None
        return found

    def owners(self) -> set[str]:
        return owners(self.journal.db)

    def left_over(self) -> list[str]:
        return left_over(self.journal.blobs, self.journal.db)


@contextlib.contextmanager
def site(root: Path, **document: Any) -> Iterator[Site]:
    made = Site(root, **document)
    try:
        yield made
    finally:
        made.shaping.close()
        made.journal.close()


FAILING = {"type": "clip_norm", "max_norm": -1}


def test_a_filter_that_fails_on_a_site_leaves_no_file(tmp_path: Path) -> None:
    chain = [{"type": "clip_value", "limit": 0.5}, FAILING]
    with site(tmp_path, filters={"results": chain, "tasks": chain}) as made:
        task = made.task(DONE, np.ones(SIZE))
        made.shaping.shape(task)
        assert "clip_norm failed" in made.shaping.outgoing(task).error
        with pytest.raises(Exception, match="clip_norm failed"):
            made.shaping.arrive(task, pb.Payload(blob=task.payload, length=4 * SIZE))
        assert made.owners() == owned("task:t:payload", "task:t:result")
        assert made.left_over() == []


def test_a_task_that_can_not_be_decoded_leaves_no_file(tmp_path: Path) -> None:
    with site(tmp_path, codecs=["quantize8"]) as made:
        task = made.task(ASSIGNED, np.ones(SIZE))
        assert made.shaping.arrive(task, pb.Payload(blob=task.payload, length=4 * SIZE, form="quantize8")) is None
        assert made.owners() == owned("task:t:payload")
        assert made.left_over() == []


@pytest.mark.parametrize("way", ["filters", "codecs"])
def test_a_result_that_nobody_wants_any_more_leaves_no_file(tmp_path: Path, way: str) -> None:
    """The task was closed while its result was worked on."""
    document: dict[str, Any] = {"filters": {"results": [{"type": "clip_value", "limit": 0.5}]}}
    if way == "codecs":
        document = {"codecs": ["cast"]}
    with site(tmp_path, **document) as made:
        task = made.task(DONE, np.linspace(0, 1, SIZE))
        made.journal.settle_task(task)
        made.shaping.shape(task)
        assert made.owners() == owned("task:t:payload", "task:t:result")
        assert made.left_over() == []


def test_what_a_full_disk_did_not_take_is_made_again_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(tmp_path, filters={"results": [{"type": "clip_value", "limit": 0.5}]}) as made:
        task = made.task(DONE, np.linspace(0, 1, SIZE))

        def fail(*_: object) -> None:
            raise StorageError("The disk is full")

        with monkeypatch.context() as full:
            full.setattr(made.shaping._shaped, "put", fail)
            with pytest.raises(StorageError):
                made.shaping.shape(task)
        assert made.owners() == owned("task:t:payload", "task:t:result")
        assert made.left_over() == []
        made.shaping.shape(task)
        blob = made.shaping.outgoing(task).blob
        assert blob is not None
        assert made.journal.blobs.path(blob).exists()
        assert made.owners() == owned("task:t:payload", "task:t:result", "task:t:filtered")
        assert made.left_over() == []


def test_a_disk_that_is_full_where_the_filters_run_costs_neither_a_result_nor_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is noted of it, and the server is not asked for anything else."""
    chain = {"results": [{"type": "clip_value", "limit": 0.5}]}
    with site(tmp_path, filters=chain, codecs=["quantize8"]) as made:
        task = made.task(DONE, np.linspace(0, 1, SIZE))
        wire, form = wire_of(["quantize8"], tmp_path, model(np.ones(SIZE)))
        blob = made.journal.blobs.put(wire, "wire")
        pushed = pb.Payload(blob=blob, length=len(wire), form=form)
        with monkeypatch.context() as full:
            full.setattr(made.journal.blobs, "spooled", lambda _: contextlib.nullcontext(Path("/dev/full")))
            with pytest.raises(DiskFullError):
                made.shaping.shape(task)
            with pytest.raises(DiskFullError):
                made.shaping.arrive(task, pushed)
        assert not made.shaping.ready(task)
        made.shaping.shape(task)
        assert made.shaping.outgoing(task).error == ""
        assert made.shaping.arrive(task, pushed) is not None


def test_a_result_that_a_site_knows_to_be_late_is_no_difference(tmp_path: Path) -> None:
    """Before it was encoded, and when it has been: the server may have forgotten what it would refer to."""
    for when in ("before", "after"):
        (tmp_path / when).mkdir()
        with site(tmp_path / when, codecs=["delta", "cast"]) as made:
            task = made.task(DONE, np.linspace(0, 1, SIZE))
            if when == "before":
                made.shaping.late(task)
            made.shaping.shape(task)
            if when == "after":
                assert made.shaping.outgoing(task).base == task.payload
                made.shaping.late(task)
            assert made.shaping.ready(task)
            out = made.shaping.outgoing(task)
            assert (out.form, out.base) == ("cast" if when == "before" else "", b"")
            assert out.blob is not None
