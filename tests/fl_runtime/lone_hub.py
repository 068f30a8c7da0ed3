"""A hub whose jobs have no process and whose sites nobody reads but the test."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from federation import TestCA

from fl_runtime import localsock
from fl_runtime.blobs import BlobStore
from fl_runtime.codecs.encode import encode
from fl_runtime.codecs.spec import chosen
from fl_runtime.db import Database
from fl_runtime.hub.bulk import BulkService
from fl_runtime.hub.job_process import Running
from fl_runtime.hub.joblink import JobLink
from fl_runtime.hub.main import Hub
from fl_runtime.hub.recorder import Recorder
from fl_runtime.hub.sessions import Session
from fl_runtime.hub.state import OPEN, RUNNING, Call, Job, Task
from fl_runtime.job.spec import parse_spec
from fl_runtime.kit import read_kit
from fl_runtime.models.tensors import TensorFile, dump
from fl_runtime.models.tensors import encode as tensors_of
from fl_runtime.names import FEATURES
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.identity import Identity

JOB = "job-1"

SIZE = 40_000  # values: more bytes than a message carries


class Heard:
    """The job's process, as the board sees it."""

    def __init__(self) -> None:
        self.results: list[Task] = []
        self.ends: list[Mapping[str, Any]] = []  # of calls

    def result(self, task: Task) -> None:
        self.results.append(task)

    def closed(self, call: Call, outcome: Mapping[str, Any]) -> None:
        self.ends.append(outcome)


class Server:
    """A hub with one running job; its sites are sessions that nobody reads but the test."""

    def __init__(self, root: Path, **document: Any) -> None:
        self.root = root
        self._kit = read_kit(TestCA().kit(root / "kit", "server", "server", port=1))
        (root / "state").mkdir()
        workflow = {"type": "fedavg", "rounds": 2, **document.pop("workflow", {})}
        spec = parse_spec({"name": "x", "script": "train.py", "workflow": workflow, **document}).document()
        self.heard = Heard()
        self._sockets: list[socket.socket] = []
        self._begin()
        bundle = self.hub.blobs.put(b"bundle", f"job:{JOB}:bundle")
        self.hub.store.add_job(Job(JOB, "x", spec, "a@b.c", b"{}", b"", b"", bundle, 6, RUNNING))
        for site in ("site-1", "site-2"):
            self.hub.store.set_site(JOB, site, "running")

    def _begin(self) -> None:
        self.hub = Hub(self._kit, self.root / "state")
        self.hub.jobs._closing = True  # nothing is started

    @property
    def job(self) -> Job:
        found = self.hub.store.job(JOB)
        assert found is not None
        return found

    def close(self) -> None:
        for job in list(self.hub.wires.shops._shops):
            self.hub.wires.shops.end(job)
        self.hub.stop()
        while self._sockets:
            self._sockets.pop().close()

    def restart(self) -> None:
        self.close()
        self._begin()

    def call(self, values: np.ndarray, round_: int = 0, index: int = 0, **settings: Any) -> Call:
        blob = self.hub.blobs.put(model(values), f"job:{JOB}:new")
        return Call(JOB, round_, index, "train", ("site-1",), "d", {}, blob, settings)

    def open(self, call: Call) -> None:
        """What the job's process does with a call; after a restart, too."""
        self.hub.wires.prepare(self.job, call)
        self.hub.board.open(call, self.heard, lambda: self.hub.jobs.out(JOB))

    def connect(self, site: str = "site-1") -> Session:
        identity = Identity(site, "site", "digits", "1")
        session = Session(identity, "i", "0", {}, "a", None, features=frozenset(FEATURES))  # type: ignore[arg-type]
        self.hub.sessions.enter(session)
        return session

    def values(self, blob: bytes) -> np.ndarray:
        path = self.hub.blobs.path(blob)
        return TensorFile(path if path.exists() else self.hub.blobs.read(blob)).array("w")

    def may_read(self, blob: bytes, site: str = "site-1", index: int = 0) -> bool:
        query = pb.BlobQuery(job=JOB, task=f"{JOB}/0.{index}/{site}", blob=blob)
        return BulkService(self.hub)._may_read(Identity(site, "site", "digits", "1"), query)

    def link(self) -> JobLink:
        ours, theirs = socket.socketpair()
        self._sockets += [ours, theirs]
        return JobLink(self.hub, Running(self.job, self.root, 1), localsock.Connection(ours))

    def commit(self, round_: int) -> None:
        message = {"round": round_, "model": None, "metrics": {}, "tensors": {}, "state": {}}
        recorder = Recorder(self.hub, Running(self.job, self.root, 1))
        recorder.commit(message)
        recorder.release()

    def owners(self) -> set[str]:
        return owners(self.hub.store.db)

    def left_over(self) -> list[str]:
        return left_over(self.hub.blobs, self.hub.store.db)

    def answer(
        self, task: str, wire: bytes, site: str = "site-1", meta: Mapping[str, Any] | None = None, **payload: Any
    ) -> None:
        """A result whose content has been pushed before."""
        owner = f"job:{JOB}:task:{task}"
        found = self.hub.store.task(task)
        if found is not None and found.state != OPEN:
            owner = self.hub.board.late.owner(JOB, site)
        blob = self.hub.blobs.put(wire, owner)
        content = pb.Payload(blob=blob, length=len(wire), **payload)
        text = json.dumps(meta or {"params_type": "FULL"}).encode()
        self.hub.board.answers.take(site, pb.TaskResult(job=JOB, task=task, meta=text, payload=content))


def owners(db: Database) -> set[str]:
    """Who refers to a blob."""
    return {row["owner"] for row in db.all("SELECT owner FROM blob_refs")}


def owned(*names: str) -> set[str]:
    """Owners, by what they are of the job: who else refers to a blob has left something behind."""
    return {f"job:{JOB}:{name}" for name in names}


def left_over(blobs: BlobStore, db: Database) -> list[str]:
    """Files that nobody refers to, once all that is not referred to is collected."""
    blobs.collect(0.0)
    known = {row["id"].hex() for row in db.all("SELECT id FROM blobs")}
    unknown = [path.name for path in blobs.folder.iterdir() if path.name not in known]
    return [*unknown, *(path.name for path in blobs.spool.iterdir())]


@contextlib.contextmanager
def server(root: Path, **document: Any) -> Iterator[Server]:
    made = Server(root, **document)
    try:
        yield made
    finally:
        made.close()


def model(values: np.ndarray) -> bytes:
    return dump(*tensors_of({"w": values.astype(np.float32)}))


def sent(session: Session) -> list[pb.ToParticipant]:
    """What a site has been sent since this was asked last."""
    found = []
    while not session.out.empty():
        message = session.out.get()
        if message is not None:
            found.append(message)
    return found


def pushed(session: Session) -> list[pb.Task]:
    """The tasks among that."""
    return [message.task for message in sent(session) if message.WhichOneof("body") == "task"]


def acks(session: Session) -> list[pb.ResultAck]:
    """The answers to its results among that."""
    return [message.result_ack for message in sent(session) if message.WhichOneof("body") == "result_ack"]


def wire_of(kinds: list[Any], tmp: Path, source: bytes, **given: Any) -> tuple[bytes, str]:
    """What a site would send, and its form."""
    entries = parse_spec({"name": "x", "script": "x", "codecs": kinds}).codecs
    about = encode(source, chosen(entries, "results", FEATURES), tmp / "wire", **given)
    return (tmp / "wire").read_bytes(), about["form"]
