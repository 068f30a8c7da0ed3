"""Targets that are asked: what sites, admins, a stolen server, a job's script and a job's workflow may send."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
from cryptography import x509
from document_targets import BASE
from fuzz_world import changes, world
from google.protobuf.message import DecodeError

from fl_runtime import localsock
from fl_runtime.agent.attempt import Outbox
from fl_runtime.agent.isolation import Isolation
from fl_runtime.agent.journal import TaskRow
from fl_runtime.agent.run import Run
from fl_runtime.blobs import of_bytes
from fl_runtime.errors import NONSENSE, FlError, ProtocolError
from fl_runtime.hub.bulk import BulkService
from fl_runtime.hub.job_process import Running
from fl_runtime.hub.joblink import JobLink
from fl_runtime.hub.service import HubService
from fl_runtime.hub.sessions import Session
from fl_runtime.hub.state import RUNNING, Call, Job, Task
from fl_runtime.job.spec import parse_spec
from fl_runtime.kit import Kit
from fl_runtime.names import PROTOCOL_MAJOR
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.identity import read_identity

JOB = "job-1"
TASK = f"{JOB}/0.0/site-1"
AT_WORK = f"{JOB}/0.1/site-1"  # the agent has it already
PUSHED = b"pushed"  # what the site has offered and may push


class Aborted(Exception):
    """A call that was refused in gRPC's way."""


class Context:
    """Of a call by the site or the admin."""

    def __init__(self, kit: Kit) -> None:
        self._certificate = kit.certificate
        self._asked = 0
        self.ended: Callable[[], None] = lambda: None

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]}

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        assert code is not grpc.StatusCode.INTERNAL
        assert code is not grpc.StatusCode.UNKNOWN
        raise Aborted(details)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.ended = callback
        return True

    def is_active(self) -> bool:
        self._asked += 1
        return self._asked < 4

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def cancel(self) -> None:
        pass

    def send_initial_metadata(self, metadata: Any) -> None:
        pass


def _hub_with_job() -> Any:
    """A hub with a running job in which site-1 has an open task, whatever was done to it before."""
    hub = world().hub
    if hub.store.job(JOB) is None:
        hub.orders._answers["a"] = {}  # somebody waits for the answers to an order
        bundle = hub.blobs.put(b"bundle" * 20_000, f"job:{JOB}:bundle")
        spec = parse_spec({"name": "x", "script": "train.py", "workflow": {"type": "fedavg", "rounds": 2}}).document()
        job = Job(JOB, "x", spec, "a@b.c", b"{}", b"", b"", bundle, 120_000, RUNNING)
        hub.store.add_job(job)
        hub.store.set_site(JOB, "site-1", "running")
        hub.store.add_event(JOB, {"event": "submitted"})
        call = Call(JOB, 0, 0, "train", ("site-1",), "d", {}, hub.blobs.put(BASE, f"job:{JOB}:call:0:0"), {})
        hub.store.open_call(call, [Task(TASK, JOB, 0, 0, "site-1", 1, "open")])
    if hub.store.task(TASK).state != "open":
        hub.store.db.run("UPDATE tasks SET state = 'open', result = NULL, answered = 0 WHERE id = ?", TASK)
    if not hub.blobs.owners(of_bytes(BASE).id):
        hub.blobs.put(BASE, f"job:{JOB}:call:0:0")
    return hub


def from_site(data: bytes) -> bool:
    """What a site sends on its stream: whatever it is, it is handled or refused with our own error. Taken when it was
    answered, or has changed what the hub knows."""
    try:
        message = pb.ToHub.FromString(data)
    except DecodeError:
        return False
    hub = _hub_with_job()
    identity = read_identity(x509.load_pem_x509_certificate(world().site.certificate))
    session = Session(identity, "i", "0", {}, "a", Context(world().site))  # type: ignore[arg-type]

    def known() -> Any:
        said = dict(hub.orders._answers["a"]), hub.jobs.starter.figures("site-1")
        return changes(hub.store.db), hub.logs.have(JOB, "site-1"), said

    hub.sessions.enter(session)
    try:
        while not session.out.empty():
            session.out.get()
        before = known()
        with contextlib.suppress(FlError):
            hub.on_message(session, message)
        taken = not session.out.empty() or known() != before
    finally:
        hub.sessions.leave(session)
        hub.orders._answers["a"].clear()
    assert hub.store.job(JOB).state == "RUNNING"
    return taken


def hellos(data: bytes) -> bool:
    """The first message of a stream."""
    try:
        first = pb.ToHub.FromString(data)
    except DecodeError:
        return False
    hub, context = _hub_with_job(), Context(world().site)
    stream = HubService(hub).connect(iter([first]), context)  # type: ignore[arg-type]
    try:
        answer = next(stream)
        assert answer.WhichOneof("body") in ("welcome", "refusal")
        return bool(answer.WhichOneof("body") == "welcome")
    except Aborted:
        return False
    finally:
        context.ended()
        stream.close()


def calls(data: bytes) -> bool:
    """Calls of an admin and of a site; the first byte chooses the method, the rest is the request (of a push: the
    length of its header, the header, a chunk). Taken when it was answered."""
    if not data:
        return False
    hub = _hub_with_job()
    admin, bulk = HubService(hub), BulkService(hub)
    methods: list[tuple[Callable[..., Any], Any, Kit]] = [
        (admin.submit, pb.SubmitRequest, world().admin),
        (admin.ask, pb.Question, world().admin),
        (admin.command, pb.Order, world().admin),
        (admin.revoke, pb.Revocations, world().admin),
        (admin.watch, pb.WatchRequest, world().admin),
        (bulk.describe, pb.BlobQuery, world().site),
        (bulk.offer, pb.OfferRequest, world().site),
        (bulk.pull, pb.PullRequest, world().site),
        (bulk.push, None, world().site),
    ]
    method, kind, kit = methods[data[0] % len(methods)]
    context = Context(kit)
    if kind is None:  # as if it had just been offered
        owner = f"job:{JOB}:task:{TASK}"
        hub.blobs.drop_refs(owner)
        hub.blobs.collect(0.0)
        hub.blobs.receive(of_bytes(PUSHED), owner, sender="site-1", known=True)
    try:
        end = 2 + data[1] if len(data) > 1 else 1
        request = kind.FromString(data[1:]) if kind is not None else iter([data[2:end], data[end:]])
        if kind is pb.Question and request.verb in ("delete", "abort"):
            return False  # they would end the job that the others need
        answer = method(request, context)
        if hasattr(answer, "__next__"):
            return bool(list(itertools.islice(answer, 3)))
        return True
    except (DecodeError, Aborted):
        return False
    finally:
        context.ended()


def from_hub(data: bytes) -> bool:
    """What a stolen server sends to an agent; taken when it was answered, or has changed what the agent knows."""
    try:
        message = pb.ToParticipant.FromString(data)
    except DecodeError:
        return False
    agent, out = world().agent, Outbox()
    agent.link._attempt = SimpleNamespace(welcome=pb.Welcome(), major=PROTOCOL_MAJOR, out=out, bulk=lambda count: [])
    with agent.journal.db.tx():
        for table in ("tasks", "jobs"):
            agent.journal.db.run(f"DELETE FROM {table}")
    agent.journal.assign(TaskRow(AT_WORK, JOB, 1, "train", {}, None, 0, "ready"))

    def known() -> Any:
        return changes(agent.journal.db), agent.revocations.current

    before = known()
    agent.link._take(message.WhichOneof("body"), message)
    for worker in (agent._jobs_worker, agent._down, agent.results._worker):  # one hands on to the next
        done = threading.Event()
        worker.do(done.set)
        assert done.wait(60)
    assert not agent.jobs.runs()
    return bool(out._high or out._low) or known() != before


class Script:
    """A job that waits for a process to attach itself, with one task, in an agent of its own."""

    _numbers = itertools.count()

    def __init__(self) -> None:
        self.agent = world().agent_with_a_job
        journal, jobs = self.agent.journal, self.agent.jobs
        self.folder = self.agent.state / "jobs" / JOB
        spec = parse_spec({"name": "x", "attach": True, "workflow": {"type": "fedavg", "rounds": 2}})
        self.run: Run = jobs._new_run(JOB, spec, self.folder, {}, Isolation(None, False, False, False, False))
        self.run.start()
        payload = journal.blobs.put(BASE, f"job:{JOB}:task")
        self.task = f"{JOB}/{next(self._numbers)}.0/site-1"
        row = TaskRow(self.task, JOB, 1, "train", {}, payload, len(BASE), "ready")
        self.run.deliver(journal.assign(row))

    def close(self) -> None:
        self.run.end()
        del self.agent.jobs._runs[JOB]
        self.agent.jobs._sockets.pop(JOB).close()
        shutil.rmtree(self.folder)


def local_requests(data: bytes) -> bool:
    """What a job's script may say to its agent, frame by frame; taken when it was given a task or has answered one."""
    with contextlib.closing(Script()) as script:
        connection = localsock.connect(script.run.place.socket, 60)
        answers: list[dict[str, Any]] = []
        wake = threading.Timer(0.3, script.run.end)  # who waits for a second task, or for a cancelled one
        wake.start()
        try:
            with contextlib.suppress(OSError):
                connection._socket.sendall(data.replace(b"job-1/0.0/site-1", script.task.encode()))
                connection._socket.shutdown(socket.SHUT_WR)
            while (received := connection.receive()) is not None:
                answers.append(received[0])
        except ProtocolError:
            pass
        finally:
            wake.cancel()
            connection.close()
        for answer in answers:
            for place in (answer.get("file"), (answer.get("task") or {}).get("file")):
                assert place is None or place.startswith(str(script.agent.state)), place
        answered = script.agent.journal.task(script.task).state == "done"
        assert answered == ({"ok": True} in answers)
        return answered


def from_workflow(data: bytes) -> bool:
    """What a job's own code on the server may ask for; `_serve` answers these errors by ending the connection. Taken
    when it was answered, or has changed what the hub knows."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return False
    if not isinstance(message, dict) or message.get("op") in ("finish", "fail", "commit", "checkpoint"):
        return False  # these end the job, or its round, that the others need
    hub = _hub_with_job()
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    link = JobLink(hub, Running(hub.store.job(JOB), world().root, 1), localsock.Connection(ours))
    handler = getattr(link, "_do_" + str(message.get("op")), None)
    if message.get("op") == "judge":  # what it judges has been answered
        hub.store.answer(TASK, {}, None)
    before = changes(hub.store.db)
    taken = False
    try:
        if handler is not None:
            with contextlib.suppress(FlError, *NONSENSE):
                handler(message, b"bytes")
        taken = changes(hub.store.db) != before
        ours.shutdown(socket.SHUT_WR)
        for answer in _answers(localsock.Connection(theirs)):
            taken = True
            file = answer.get("file")
            assert file is None or file.startswith(str(world().root)), file
    finally:
        ours.close()
        theirs.close()
        for path in hub.blobs.spool.iterdir():  # what it asked room for; the next one has the quota for itself
            path.unlink()
    job = hub.store.job(JOB)
    if job.state != RUNNING:  # it asked for something else than its first launch, or for what no codec can do
        assert (job.state, handler.__name__) == ("FAILED", "_do_call"), (job.state, message)
        assert job.cause
        world().new_hub()
    return taken


def _answers(connection: localsock.Connection) -> Iterator[dict[str, Any]]:
    while (received := connection.receive()) is not None:
        yield received[0]
