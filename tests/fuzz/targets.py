"""What is fuzzed: each target takes bytes as anybody may send them. Only our own errors may come out; anything else,
a hang, or memory without end is a bug. `test_fuzz.py` feeds them from hypothesis, `guided.py` from atheris.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "fl_runtime"))

import grpc
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from federation import TestCA
from google.protobuf.message import DecodeError

from fl_runtime import localsock
from fl_runtime.blobs import Manifest
from fl_runtime.codecs.decode import decode
from fl_runtime.errors import FlError, JobSpecError, KitError, ProtocolError, RefusedError
from fl_runtime.job.bundle import pack, unpack
from fl_runtime.job.envelope import open_envelope
from fl_runtime.job.spec import parse_spec, read_spec
from fl_runtime.kit import Kit, read_kit
from fl_runtime.models.tensors import TensorFile
from fl_runtime.orders import open_order
from fl_runtime.plain import parse_plain
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.revocations import RevocationList

Target = Callable[[bytes], None]


class Unexpected(logging.Handler):
    """What our code logs with a traceback, it did not expect: that is a bug too."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR and record.exc_info and record.exc_info[1] is not None:
            raise record.exc_info[1]


class World:
    """Kits of a small CA, a folder, and (made when first asked for) a hub and an agent that nobody is connected to."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="fedspan-fuzz-"))
        atexit.register(shutil.rmtree, self.root, True)
        logger = logging.getLogger("fedspan")
        logger.addHandler(Unexpected())
        logger.propagate = False
        self.ca = TestCA()
        self.site: Kit = read_kit(self._small(self.ca.kit(self.root / "site", "site-1", "site", port=1)))
        self.server: Kit = read_kit(self._small(self.ca.kit(self.root / "server", "server", "server", port=1)))
        self.admin: Kit = read_kit(self.ca.kit(self.root / "admin", "a@b.c", "admin", port=1, admin_role="lead"))
        self.key = serialization.load_pem_private_key(self.admin.key, None)
        self._numbers = itertools.count()

    @staticmethod
    def _small(kit: Path) -> Path:
        """What asks for room for a huge file gets it, up to the quota: not the whole disk."""
        (kit / "local/resources.yml").write_text("disk_quota: 64MB\n")
        return kit

    def sign(self, document: bytes) -> bytes:
        assert isinstance(self.key, ec.EllipticCurvePrivateKey)
        return self.key.sign(document, ec.ECDSA(hashes.SHA256()))

    def fresh(self) -> Path:
        """A path where nothing is."""
        return self.root / f"n{next(self._numbers)}"

    @functools.cached_property
    def hub(self) -> Any:
        from fl_runtime.hub.main import Hub

        (self.root / "hub-state").mkdir()
        hub = Hub(self.server, self.root / "hub-state")
        hub.jobs._closing = True  # nothing is started
        hub.wait_change = lambda seen, timeout: None  # who watches need not wait
        return hub

    @functools.cached_property
    def agent(self) -> Any:
        from fl_runtime.agent.main import Agent

        (self.root / "agent-state").mkdir()
        return Agent(self.site, self.root / "agent-state", {})


@functools.lru_cache(maxsize=1)
def world() -> World:
    return World()


@contextlib.contextmanager
def scratch() -> Any:
    path = world().fresh()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# --- what is read from files and sockets


def frames(data: bytes) -> None:
    """The local wire."""
    ours, theirs = socket.socketpair()

    def feed() -> None:
        with contextlib.suppress(OSError):
            theirs.sendall(data)
        theirs.close()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    connection = localsock.Connection(ours)
    try:
        while (received := connection.receive()) is not None:
            assert isinstance(received[0], dict)
    except ProtocolError:
        pass
    finally:
        connection.close()
        feeder.join()


def manifests(data: bytes) -> None:
    try:
        message = pb.Manifest.FromString(data)
        manifest = Manifest(message.length, message.leaves)
    except (DecodeError, ProtocolError):
        return
    assert len(manifest.id) == 32
    assert sum(manifest.size(index) for index in range(min(manifest.count, 1000))) <= manifest.length


def archives(data: bytes) -> None:
    """A bundle that a site was sent: nothing outside of its folder, and packed again it gives the same."""
    with scratch() as top:
        top.mkdir()
        try:
            unpack(data, top / "job")
            with contextlib.suppress(JobSpecError):
                unpack(pack(top / "job"), top / "again")
        except JobSpecError:
            pass
        assert {path.name for path in top.iterdir()} <= {"job", "again"}
        assert not any(path.is_symlink() for path in top.rglob("*"))


def job_files(data: bytes) -> None:
    """job.yml, job.json."""
    for as_json in (False, True):
        try:
            spec = parse_spec(parse_plain(data, as_json))
        except (ValueError, JobSpecError):
            continue
        assert parse_spec(json.loads(json.dumps(spec.document()))) == spec
        str(spec.need)


def job_folders(data: bytes) -> None:
    with scratch() as folder:
        folder.mkdir()
        (folder / "train.py").write_bytes(b"")
        (folder / "job.yml").write_bytes(data)
        with contextlib.suppress(JobSpecError):
            read_spec(folder)


def kits(data: bytes) -> None:
    """Each file of a kit that is read when it is in use."""
    kit = world().site
    for name in ("endpoint", "data", "policy", "resources", "store"):
        (kit.path / f"local/{name}.yml").write_bytes(data)
    try:
        from fl_runtime.agent.capacity import Capacity
        from fl_runtime.blobs.space import disk_quota
        from fl_runtime.hub.main import bulk_streams

        for read in (kit.endpoint, kit.data, kit.policy, kit.resources, kit.store, Capacity(kit).totals,
                     lambda: bulk_streams(kit), lambda: disk_quota(kit)):  # fmt: skip
            with contextlib.suppress(KitError, JobSpecError):
                read()
    finally:
        for name in ("endpoint", "data", "policy", "resources", "store"):
            (kit.path / f"local/{name}.yml").unlink()
    with scratch() as folder:
        (folder / "startup").mkdir(parents=True)
        (folder / "startup/participant.yml").write_bytes(data)
        with contextlib.suppress(KitError):
            read_kit(folder)


# --- what is signed: the signature is right here, so that what is behind it is reached


def _no_number(word: str) -> None:
    """NaN and its like, as numbers: as text they may stand in a document."""
    raise AssertionError(f"{word} was taken for a number")


def envelopes(data: bytes) -> None:
    kit, signature = world().site, world().sign(data)
    with contextlib.suppress(RefusedError):
        opened = open_envelope(kit, data, signature, world().admin.certificate)
        assert json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode() == data
        assert opened.signer.name == "a@b.c"
        json.loads(data, parse_constant=_no_number)


def orders(data: bytes) -> None:
    with contextlib.suppress(RefusedError):
        open_order(world().site, data, world().sign(data), world().admin.certificate)


def certificates(data: bytes) -> None:
    """Somebody's certificate, in place of the signer's."""
    document = b"{}"
    pem = b"-----BEGIN CERTIFICATE-----\n" + _base64(data) + b"-----END CERTIFICATE-----\n"
    for certificate in (data, pem):
        with contextlib.suppress(RefusedError):
            open_envelope(world().site, document, data[:80], certificate)
        with contextlib.suppress(RefusedError):
            open_order(world().site, document, data[:80], certificate)


def _base64(data: bytes) -> bytes:
    import base64

    return base64.encodebytes(data)


def revocations(data: bytes) -> None:
    signature = world().ca.key.sign(data, ec.ECDSA(hashes.SHA256()))
    with contextlib.suppress(RefusedError):
        found = RevocationList.parse(data, signature, world().site.ca)
        assert found.number >= 1
        found.fresh()


# --- models


def models(data: bytes) -> None:
    """A safetensors file, through the mappers to numpy and torch: no view outside of the file."""
    with scratch() as path:
        path.write_bytes(data)
        for source in (data, path):
            try:
                file = TensorFile(source)
            except ProtocolError:
                continue
            with file:
                total = 0
                for name, tensor in file.tensors.items():
                    assert 0 <= tensor.start <= tensor.start + tensor.length <= len(data)
                    total += tensor.length
                    raw, flat, array = file.raw(name), file.flat(name), file.array(name)
                    assert (len(raw), flat.size, array.shape) == (tensor.length, tensor.count, tensor.shape)
                    np.asarray(array).sum()
                    if torch := _torch():
                        with contextlib.suppress(ProtocolError):
                            assert tuple(file.torch(name).shape) == tensor.shape
                            assert torch.is_tensor(file.torch(name))
                assert total <= len(data)


def _torch() -> Any:
    return sys.modules.get("torch")


LIMIT = 1 << 20
BASE = b'\x48\0\0\0\0\0\0\0{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}' + b" " * 17 + bytes(16)


def containers(data: bytes) -> None:
    """An encoded model, with and without a base."""
    with scratch() as folder:
        folder.mkdir()
        for base, base_id in ((None, ""), (BASE, "aa")):
            target = folder / "plain"
            try:
                decode(data, target, LIMIT, base, base_id)
            except ProtocolError:
                continue
            assert target.stat().st_size <= LIMIT
            TensorFile(target)


# --- messages


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


JOB = "job-1"


def _hub_with_job() -> Any:
    """A hub with a running job in which site-1 has a task."""
    from fl_runtime.hub.state import RUNNING, Call, Job, Task

    hub = world().hub
    if hub.store.job(JOB) is None:
        bundle = hub.blobs.put(b"bundle" * 20_000, f"job:{JOB}:bundle")
        spec = parse_spec({"name": "x", "script": "train.py", "workflow": {"type": "fedavg", "rounds": 2}}).document()
        job = Job(JOB, "x", spec, "a@b.c", b"{}", b"", b"", bundle, 120_000, RUNNING)
        hub.store.add_job(job)
        hub.store.set_site(JOB, "site-1", "running")
        call = Call(JOB, 0, 0, "train", ("site-1",), "d", {}, hub.blobs.put(BASE, f"job:{JOB}:call:0:0"), {})
        hub.store.open_call(call, [Task(f"{JOB}/0.0/site-1", JOB, 0, 0, "site-1", 1, "open")])
    return hub


def from_site(data: bytes) -> None:
    """What a site sends on its stream: whatever it is, it is handled or refused with our own error."""
    try:
        message = pb.ToHub.FromString(data)
    except DecodeError:
        return
    from fl_runtime.hub.sessions import Session
    from fl_runtime.wire.identity import read_identity

    hub = _hub_with_job()
    identity = read_identity(x509.load_pem_x509_certificate(world().site.certificate))
    session = Session(identity, "i", "0", {}, "a", Context(world().site))  # type: ignore[arg-type]
    with contextlib.suppress(FlError):
        hub.on_message(session, message)
    assert hub.store.job(JOB).state == "RUNNING"


def hellos(data: bytes) -> None:
    """The first message of a stream."""
    try:
        first = pb.ToHub.FromString(data)
    except DecodeError:
        return
    from fl_runtime.hub.service import HubService

    hub, context = _hub_with_job(), Context(world().site)
    stream = HubService(hub).connect(iter([first]), context)  # type: ignore[arg-type]
    try:
        answer = next(stream)
        assert answer.WhichOneof("body") in ("welcome", "refusal")
    except Aborted:
        pass
    finally:
        context.ended()
        stream.close()


def calls(data: bytes) -> None:
    """Calls of an admin and of a site; the first byte chooses the method, the rest is the request."""
    if not data:
        return
    from fl_runtime.hub.bulk import BulkService
    from fl_runtime.hub.service import HubService

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
    try:
        request = kind.FromString(data[1:]) if kind is not None else iter([data[1:60], data[60:]])
        if kind is pb.Question and request.verb in ("delete", "abort"):
            return  # they would end the job that the others need
        answer = method(request, context)
        if hasattr(answer, "__next__"):
            for _ in itertools.islice(answer, 3):
                pass
    except (DecodeError, Aborted):
        pass
    finally:
        context.ended()


def from_hub(data: bytes) -> None:
    """What a stolen server sends to an agent."""
    try:
        message = pb.ToParticipant.FromString(data)
    except DecodeError:
        return
    agent = world().agent
    kind = message.WhichOneof("body")
    with contextlib.suppress(FlError):
        if kind == "job_start":
            agent.jobs.start(message.job_start)
        else:
            agent.link._take(kind, message)
    assert not agent.jobs.runs()


def local_requests(data: bytes) -> None:
    """What a job's script may say to its agent, frame by frame."""
    from fl_runtime.agent.clients import serve_clients

    agent = world().agent
    path = agent.state / "c.sock"
    if not hasattr(agent, "_fuzzed"):
        agent._fuzzed = serve_clients(agent, path)
    connection = localsock.connect(path, 5)
    try:
        connection._socket.sendall(data)
        connection._socket.shutdown(socket.SHUT_WR)
        while connection.receive() is not None:
            pass
    except (OSError, ProtocolError):
        pass
    finally:
        connection.close()


def from_workflow(data: bytes) -> None:
    """What a job's own code on the server may ask for; `_serve` answers these errors by ending the connection."""
    from fl_runtime.errors import NONSENSE
    from fl_runtime.hub.job_process import Running
    from fl_runtime.hub.joblink import JobLink

    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(message, dict) or message.get("op") in ("finish", "fail", "commit", "checkpoint"):
        return  # these end the job, or its round, that the others need
    hub = _hub_with_job()
    ours, theirs = socket.socketpair()
    try:
        theirs.settimeout(5)
        link = JobLink(hub, Running(hub.store.job(JOB), world().root, 1), localsock.Connection(ours))
        with contextlib.suppress(FlError, *NONSENSE):
            getattr(link, "_do_" + str(message.get("op")), lambda *_: None)(message, b"")
    finally:
        ours.close()
        theirs.close()
        for path in hub.blobs.spool.iterdir():  # what it asked room for; the next one has the quota for itself
            path.unlink()


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        *(frames, manifests, archives, job_files, job_folders, kits, envelopes, orders, certificates, revocations),
        *(models, containers, from_site, hellos, calls, from_hub, local_requests, from_workflow),
    )
}


@contextlib.contextmanager
def no_thread_dies() -> Any:
    """A thread of ours that ends with an exception is a bug too."""
    died: list[Any] = []
    before = threading.excepthook
    threading.excepthook = died.append
    try:
        yield
    finally:
        threading.excepthook = before
    assert not died, [(entry.exc_type, entry.exc_value) for entry in died]


def environment() -> dict[str, str]:
    return {**os.environ, "FEDSPAN_BIND": "127.0.0.1"}
