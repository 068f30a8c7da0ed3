"""A disk without a free byte in the middle of a job, on the server or on a site: everybody waits, then it goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from federation import Federation, until
from safetensors.numpy import load_file
from scripts import SLOW

from fl_runtime.blobs import Manifest
from fl_runtime.errors import JobError, StorageError
from fl_runtime.hub.main import Hub
from fl_runtime.kit import read_kit

MIB = 1024 * 1024
ROUNDS = 8
root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root: a small disk of its own (tmpfs)"
)


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={mib}m,mode=0755"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path) -> Path:
    """Take every byte, and go on taking what somebody else gives back."""
    ballast = folder / "ballast"
    with open(ballast, "ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (MIB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return ballast


@root
@pytest.mark.slow
@pytest.mark.parametrize("whose", ["server", "site-2"])
def test_a_full_disk_is_waited_for_and_nothing_is_lost(stopped: Federation, whose: str) -> None:
    process = stopped.server if whose == "server" else stopped.sites[whose]
    marks = stopped.root / "marks"
    workflow = {"type": "fedavg", "rounds": ROUNDS, "model": {"tensors": {"w": [500_000]}}, "min_sites": 3}
    folder = stopped.job("full", SLOW, config={"marks": str(marks), "seconds": 0.4}, workflow=workflow)
    with small_disk(process.state, 200):
        try:
            stopped.start()
            with stopped.session() as session:
                job = session.submit(folder)
                until(lambda: session.show(job)["round"] >= 2, what="two rounds")
                end = time.monotonic() + 10
                while time.monotonic() < end:
                    ballast = fill(process.state)
                    time.sleep(0.2)
                view = session.show(job)
                assert view["state"] == "RUNNING", view
                assert view["round"] < ROUNDS - 1
                assert process.process is not None
                assert process.process.poll() is None, process.text()
                ballast.unlink()
                session.wait(job, 120)
                model = load_file(session.download(job, stopped.root / "results") / "model.safetensors")["w"]
        finally:
            stopped.stop()
    assert np.array_equal(model, np.full(500_000, 2.0 * ROUNDS, np.float32))
    for site in stopped.sites:
        computed = (marks / f"{site}.txt").read_text().split()
        # a script that could not even print was started again with its task; nothing else was done twice
        assert len(computed) <= ROUNDS + (whose == site) * 3, f"{site}: {computed}"
        assert sorted(set(map(int, computed))) == list(range(ROUNDS))


def test_a_result_that_finds_no_room_in_the_database_is_not_lost(
    stopped: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are here; only the commit that says so fails, for each site's."""
    monkeypatch.setenv("FEDSPAN_BIND", "127.0.0.1")
    stopped.server.state.mkdir()
    hub = Hub(read_kit(stopped.server.kit), stopped.server.state)
    register, commit = hub.blobs.register, hub.store.db._commit
    registered: list[str] = []
    failed: list[str] = []

    def noted(manifest: Manifest, inline: bytes | None, owner: str, boot: str | None = None) -> bytes:
        registered.append(owner)
        return register(manifest, inline, owner, boot)

    def full() -> None:
        owners, registered[:] = list(registered), []
        if owners and ":task:" in owners[0] and failed.count(owners[0]) < 2:
            failed.append(owners[0])
            raise StorageError("The database or disk is full")
        commit()

    monkeypatch.setattr(hub.blobs, "register", noted)
    monkeypatch.setattr(hub.store.db, "_commit", full)
    try:
        hub.start()
        stopped.start(*stopped.sites)
        config = {"marks": str(stopped.marks), "seconds": 0.0}
        workflow = {"type": "fedavg", "rounds": 1, "model": {"tensors": {"w": [50_000]}}, "min_sites": 3}
        with stopped.session() as session:
            job = session.submit(stopped.job("noted", SLOW, config=config, workflow=workflow))
            session.wait(job, 120)
            model = load_file(session.download(job, stopped.root / "results") / "model.safetensors")["w"]
    finally:
        hub.stop()
    assert sorted(failed) == sorted(2 * [f"job:{job}:task:{job}/0.0/{site}" for site in stopped.sites])
    assert np.array_equal(model, np.full(50_000, 2.0, np.float32))


@pytest.mark.parametrize("whose", ["server", "site-2"])
def test_a_quota_that_is_met_ends_the_job_with_its_cause(stopped: Federation, whose: str) -> None:
    """It is somebody's will, not a state that passes."""
    process = stopped.server if whose == "server" else stopped.sites[whose]
    script = SLOW.replace('model.params["w"] + int(site[-1])', "np.zeros(3_000_000, np.float32)").replace(
        "import pathlib", "import numpy as np, pathlib"
    )
    marks = stopped.root / "marks"
    config = {"marks": str(marks), "seconds": 0.1}
    folder = stopped.job("quota", script, config=config, workflow={"type": "fedavg", "rounds": 2})
    process.env = {**process.env, "FEDSPAN_DISK_QUOTA": "8MB"}
    stopped.start()
    with stopped.session() as session, pytest.raises(JobError, match=r"quota.*(?s:.)*8\.0 MB are allowed") as told:
        session.wait(session.submit(folder), 120)
    if whose != "server":
        assert "site-2" in str(told.value)
