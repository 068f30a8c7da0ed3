"""Filters and codecs where something comes between: a restart, a checkpoint, a lie, a full disk."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import TestCA, until

from fl_runtime import localsock
from fl_runtime.agent.journal import ASSIGNED, DONE, Journal, TaskRow
from fl_runtime.agent.shaping import Shaping
from fl_runtime.blobs import BlobStore, of_bytes
from fl_runtime.codecs.decode import decode
from fl_runtime.codecs.encode import encode
from fl_runtime.codecs.spec import chosen
from fl_runtime.db import Database
from fl_runtime.errors import FlError, RefusedError, StorageError
from fl_runtime.filters.workshop import Workshop
from fl_runtime.hub.bulk import BulkService
from fl_runtime.hub.job_process import Running
from fl_runtime.hub.joblink import JobLink
from fl_runtime.hub.main import Hub
from fl_runtime.hub.recorder import Recorder
from fl_runtime.hub.sessions import Session
from fl_runtime.hub.state import ANSWERED, OPEN, REFUSED, RUNNING, Call, Job, Task
from fl_runtime.job.spec import parse_spec
from fl_runtime.kit import read_kit
from fl_runtime.models.meta import parse_meta
from fl_runtime.models.tensors import TensorFile, dump
from fl_runtime.models.tensors import encode as tensors_of
from fl_runtime.names import FEATURES
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.identity import Identity

JOB = "job-1"
SIZE = 40_000  # values: more bytes than a message carries
CLIP = {"server": {"tasks": [{"type": "clip_value", "limit": 0.25}]}}


class Heard:
    """The job's process, as the board sees it."""

    def __init__(self) -> None:
        self.results: list[Task] = []

    def result(self, task: Task) -> None:
        self.results.append(task)

    def closed(self, call: Call, outcome: Mapping[str, Any]) -> None:
        pass


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
        self.hub.board.open(call, self.heard, {})

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


# --- a restart


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
        made.hub.board.open(call, made.heard, {})
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


# --- rounds, and none


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


# --- late results


def test_an_encoded_result_that_comes_late_stands_in_decoded(tmp_path: Path) -> None:
    codecs = [{"type": "quantize8", "on": "results"}]
    with server(tmp_path, codecs=codecs, workflow={"late": "use"}) as made:
        made.open(made.call(np.zeros(SIZE), min=1))
        made.hub.board.cancel((JOB, 0, 0), "enough")
        values = np.linspace(0, 1, SIZE)
        wire, form = wire_of(codecs, tmp_path, model(values))
        made.answer(f"{JOB}/0.0/site-1", wire, form=form, meta={"params_type": "FULL", "wire": {"plain": "00"}})
        made.open(made.call(np.ones(SIZE), round_=1, min=1, deadline=0))
        late = until(lambda: [task for task in made.heard.results if task.meta.get("late_round") == 0])[0]
        blob, meta = made.hub.wires.plain(made.job, late)
        assert "wire" not in meta
        assert np.allclose(made.values(blob), values, atol=0.01)


DELTA = {"codecs": ["delta", "quantize8"], "workflow": {"late": "use"}}


def trained(made: Server, task: pb.Task, tmp: Path) -> tuple[bytes, str]:
    """What a site sends that has added 0.5 to what it got: a difference to that, and its form."""
    decode(made.hub.blobs.read(task.payload.blob), tmp / "base", 1 << 30)
    values = TensorFile(tmp / "base").array("w") + 0.5
    return wire_of(DELTA["codecs"], tmp, model(values), base=tmp / "base", base_id=task.payload.plain.hex())


@contextlib.contextmanager
def round_over(tmp: Path) -> Iterator[tuple[Server, Session, pb.Task, bytes, str]]:
    """A server whose first round was committed without its site's result, which is a difference: it, and its form."""
    with server(tmp, **DELTA) as made:
        session = made.connect()
        made.open(made.call(np.linspace(-1, 1, SIZE), min=1))
        (task,) = pushed(session)
        wire, form = trained(made, task, tmp)
        made.hub.board.cancel((JOB, 0, 0), "enough")
        made.commit(0)
        yield made, session, task, wire, form


def test_a_difference_that_comes_a_round_late_stands_in_decoded(tmp_path: Path) -> None:
    """The model that it refers to is kept with it, whatever the rounds after it release."""
    with round_over(tmp_path) as (made, _, task, wire, form):
        made.answer(task.task, wire, form=form, base=task.payload.plain)
        made.commit(1)
        made.open(made.call(np.ones(SIZE), round_=2, min=1, deadline=0))
        (late,) = until(lambda: made.heard.results)
        blob, _ = made.hub.wires.plain(made.job, late)
        assert np.allclose(made.values(blob), np.linspace(-0.5, 1.5, SIZE), atol=0.02)
        made.hub.board.judge(late.id, True, "")
        made.commit(2)
        made.commit(3)
        assert made.owners() == owned("bundle")


def test_a_late_difference_to_a_model_that_is_gone_is_refused(tmp_path: Path) -> None:
    with round_over(tmp_path) as (made, session, task, wire, form):
        made.commit(1)
        made.answer(task.task, wire, form=form, base=task.payload.plain)
        assert [(ack.accepted, ack.why) for ack in acks(session)] == [
            (False, "The result came late, and the model that it refers to is gone")
        ]
        assert made.hub.store.late(JOB, "site-1") is None


def test_an_answer_that_makes_no_sense_is_refused_and_the_job_does_not_wait_for_it(tmp_path: Path) -> None:
    with server(tmp_path, codecs=["quantize8"]) as made:
        made.open(made.call(np.ones(SIZE)))
        name = f"{JOB}/0.0/site-1"
        blob = made.hub.blobs.put(model(np.ones(SIZE)), f"job:{JOB}:task:{name}")
        made.hub.store.answer(name, {"wire": {"plain": "00"}}, blob)
        link = made.link()
        link.result(made.hub.store.task(name))
        until(lambda: made.hub.store.task(name).state == REFUSED)


# --- the process of filters and codecs

ANSWERS_WITHOUT_WORDS = """
import sys
for line in sys.stdin:
    open(sys.argv[1], "a").write(line)
    print("{}", flush=True)
"""


def test_a_request_whose_reply_has_nothing_to_say_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoding answers {}: that is no failure."""
    argv = [sys.executable, "-c", ANSWERS_WITHOUT_WORDS, str(tmp_path / "requests")]

    def start(_: Workshop) -> subprocess.Popen[str]:
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(Workshop, "_start", start)
    shop = Workshop("x")
    try:
        assert shop.ask({"op": "decode"}) == {}
    finally:
        shop.close()
    assert (tmp_path / "requests").read_text().splitlines() == ['{"op": "decode"}']


# --- nothing is left behind


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
        made.hub.board.open(call, made.heard, {})
        made.answer(f"{JOB}/0.0/site-1", model(np.ones(SIZE)))
        with pytest.raises(Exception, match="clip_norm failed"):
            made.hub.wires.plain(made.job, made.heard.results[0])
        assert made.owners() == owned("bundle", "new", "call:0:0", f"task:{JOB}/0.0/site-1")
        assert made.left_over() == []


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


# --- what the server's filters leave of a result


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


# --- a job that ends meanwhile


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


@pytest.mark.parametrize("late", ["use", "drop"])
@pytest.mark.parametrize("inline", [True, False])
def test_a_result_whose_round_closes_while_it_is_looked_at_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str, inline: bool
) -> None:
    with server(tmp_path, workflow={"late": late}) as made:
        made.open(made.call(np.zeros(SIZE), min=1))
        data, task = model(np.ones(SIZE)), f"{JOB}/0.0/site-1"

        def read(text: bytes) -> dict[str, Any]:
            made.hub.board.cancel((JOB, 0, 0), "enough")
            return parse_meta(text)

        with monkeypatch.context() as now:
            now.setattr("fl_runtime.hub.answers.parse_meta", read)
            if inline:
                content = pb.Payload(blob=of_bytes(data).id, length=len(data), inline=data)
                made.hub.board.answers.take("site-1", pb.TaskResult(job=JOB, task=task, meta=b"{}", payload=content))
            else:
                made.answer(task, data)
        assert (made.hub.store.late(JOB, "site-1") is not None) == (late == "use")
        made.open(made.call(np.ones(SIZE), round_=1, min=1, deadline=0))
        assert [task.meta.get("late_round") for task in made.heard.results] == ([0] if late == "use" else [])
        assert made.left_over() == []
