"""A job's process on the server that can't be started, or not again: the job waits or fails, and never comes back."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from federation import Federation, job_processes, until
from scripts import ADD

from fl_runtime import processes
from fl_runtime.errors import StorageError
from fl_runtime.hub import jobs
from fl_runtime.hub.main import Hub
from fl_runtime.hub.state import ABORTED, FAILED, QUEUED, RUNNING, Job
from fl_runtime.job.bundle import pack
from fl_runtime.job.spec import read_spec
from fl_runtime.kit import read_kit
from fl_runtime.proto import fedspan_pb2 as pb


class Server:
    """A server in this process, with one job that waits for an answer of the only site."""

    def __init__(self, fed: Federation) -> None:
        self.hub = Hub(read_kit(fed.server.kit), fed.server.state)
        workflow = {"type": "fedavg", "rounds": 1, "model": {"tensors": {"w": [5]}}}
        folder = fed.job("job", ADD, workflow=workflow)
        data = pack(folder)
        bundle = self.hub.blobs.put(data, "job:job-1:bundle")
        spec = read_spec(folder).document()
        self.job = Job("job-1", "job", spec, "ana", b"e", b"s", b"c", bundle, len(data), QUEUED)
        self.hub.store.add_job(self.job)

    def running(self) -> None:
        """As an earlier life of the server has left it."""
        self.hub.store.set_job("job-1", RUNNING)
        self.hub.store.set_site("job-1", "site-1", "accepted")
        self.hub.start()

    @property
    def state(self) -> str:
        found = self.hub.store.job("job-1")
        assert found is not None
        return found.state

    def process(self) -> psutil.Process | None:
        return job_processes("job-1").get("server")


@pytest.fixture
def server(stopped: Federation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("FEDSPAN_BIND", "127.0.0.1")
    stopped.server.state.mkdir()
    made = Server(stopped)
    try:
        yield made
    finally:
        made.hub.stop()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """What waits for room on the disk: done when the test says so."""
    waiting: list[Callable[[], Any]] = []
    monkeypatch.setattr(jobs, "again", waiting.append)
    return waiting


def full(*args: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_job_that_waits_for_room_goes_on_when_there_is_some(
    server: Server, later: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(processes, "start", full)
        server.running()
    assert (server.state, server.process()) == (RUNNING, None)
    [go_on] = later
    go_on()
    assert until(server.process)


def test_a_new_job_whose_files_wait_for_room_takes_what_its_sites_answer(
    server: Server, later: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.hub.start()
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "unpack", full)
        assert server.hub.jobs.begin(server.job, ["site-1"])
    server.hub.jobs.answer("site-1", pb.JobAnswer(job="job-1", accepted=True))
    assert (server.state, server.hub.store.sites("job-1")) == (RUNNING, {"site-1": ("accepted", "")})
    [go_on] = later
    go_on()
    assert until(server.process)


@pytest.mark.parametrize("deleted", [False, True])
def test_a_job_that_is_aborted_while_it_waits_for_room_is_not_started_any_more(
    server: Server, later: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(processes, "start", full)
        server.running()
    server.hub.jobs.end("job-1", ABORTED, "by ana")
    if deleted:
        server.hub.store.delete_job("job-1")
    [go_on] = later
    go_on()
    assert server.process() is None
    assert server.hub.jobs.running("job-1") is None
    assert len(later) == 1
    assert deleted or server.state == ABORTED


def test_a_job_that_waits_for_room_when_its_server_stops_is_not_started_any_more(
    server: Server, later: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(processes, "start", full)
        server.running()
    server.hub.jobs.close()
    [go_on] = later
    go_on()
    assert server.process() is None


def test_a_queued_job_that_is_aborted_just_before_its_start_stays_so(server: Server) -> None:
    server.hub.start()
    server.hub.jobs.end("job-1", ABORTED, "by ana")
    assert not server.hub.jobs.begin(server.job, ["site-1"])  # as the scheduler saw it a moment before
    assert server.state == ABORTED
    assert server.process() is None
    assert server.hub.store.sites("job-1") == {}


def test_a_process_that_can_not_be_started_again_ends_its_job_with_the_cause(server: Server) -> None:
    server.running()
    process = until(server.process)
    shutil.rmtree(server.hub.state / "jobs/job-1")  # where it would run
    process.kill()
    until(lambda: server.state == FAILED, what="the job is given up")
    found = server.hub.store.job("job-1")
    assert found is not None
    assert "can't be started again" in found.cause
    assert "No such file" in found.cause


def test_a_process_that_ends_while_nothing_can_be_noted_is_started_again_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_runtime.patience.AGAIN_S", 0.05)
    server.running()
    first = until(server.process)
    add_event, refused = server.hub.store.add_event, []

    def full_disk(job: str, event: Any) -> None:
        if event["event"] == "restarted" and len(refused) < 2:
            refused.append(event)
            raise StorageError("The database or disk is full")
        add_event(job, event)

    monkeypatch.setattr(server.hub.store, "add_event", full_disk)
    first.kill()
    until(lambda: (found := server.process()) is not None and found.pid != first.pid, 10, "another process")
    assert len(refused) == 2
    assert server.state == RUNNING
    assert [event["event"] for _, event in server.hub.store.events("job-1", 0)].count("restarted") == 1
