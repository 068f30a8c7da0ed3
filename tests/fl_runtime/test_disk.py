"""The server's disk is asked before a job starts, and a quota ends a job with its cause."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from federation import Federation

from fl_runtime.blobs import BLOB_SCHEMA, BlobStore
from fl_runtime.db import Sqlite
from fl_runtime.errors import DiskFullError, JobError
from fl_runtime.hub import disk

MIB = 1024 * 1024


def nothing() -> bytes:
    raise AssertionError("the bundle was not to be read")


@pytest.mark.parametrize(
    ("workflow", "states"),
    [
        ({"type": "fedavg"}, 0),
        ({"type": "fedavg", "best": "accuracy"}, 1),
        ({"type": "fedavgm"}, 1),
        ({"type": "fedopt", "optimizer": {"type": "adam"}}, 2),
        ({"type": "fedopt", "optimizer": {"type": "sgd"}}, 1),
        ({"type": "scaffold", "best": "loss"}, 2),
    ],
)
def test_what_an_algorithm_keeps_beside_the_model_counts(workflow: dict, states: int) -> None:
    assert disk.states(workflow) == states


def test_the_size_of_a_model_is_known_before_the_job_starts() -> None:
    described = {"model": {"tensors": {"w": [256, 1024], "b": [1024]}, "dtype": "float64"}}
    assert disk.model_bytes(described, nothing) == 8 * (256 * 1024 + 1024)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("model.safetensors", bytes(3 * MIB))
    assert disk.model_bytes({"model": "model.safetensors"}, archive.getvalue) == 3 * MIB
    assert disk.model_bytes({"model": "other"}, archive.getvalue) is None
    assert disk.model_bytes({}, nothing) is None


def test_a_job_that_does_not_fit_is_told_so_with_the_figures(tmp_path: Path) -> None:
    space = BlobStore(tmp_path, Sqlite(tmp_path / "db", [BLOB_SCHEMA]), lambda: 100 * MIB).space
    workflow = {"type": "fedopt", "model": {"tensors": {"w": [4 * MIB]}}}
    disk.check(workflow, 1, nothing, space)  # (1 + 3 + 2) x 16 MiB
    with pytest.raises(DiskFullError, match=r"117\.4 MB are needed") as told:
        disk.check(workflow, 2, nothing, space)
    assert "(2 sites + 3 + 2 states) x 16.8 MB; 104.9 MB are free or allowed" in (told.value.why or "")
    assert "disk_quota" in (told.value.next_step or "")


def test_a_job_too_large_for_the_servers_disk_fails_before_it_starts(stopped: Federation) -> None:
    stopped.server.env["FEDSPAN_DISK_QUOTA"] = "100MB"
    stopped.start("server", "site-1")
    model = {"tensors": {"w": [8 * MIB]}}
    with stopped.session() as session:
        job = session.submit(stopped.job("large", "", workflow={"type": "fedavg", "rounds": 1, "model": model}))
        with pytest.raises(JobError, match=r"134\.2 MB are needed") as told:
            session.wait(job, 120)
        assert "(1 sites + 3 + 0 states) x 33.6 MB" in str(told.value)
        view = session.show(job)
        assert view["started"] is None
        assert view["sites"] == {}  # none was asked to run it
