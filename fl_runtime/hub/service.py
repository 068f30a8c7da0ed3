"""The hub's side of the service Hub: the participants' streams, and the admins' calls."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from fl_runtime import version
from fl_runtime.errors import FlError, ProtocolError, StorageError
from fl_runtime.hub.sessions import Session
from fl_runtime.hub.turnstile import HungUpError
from fl_runtime.names import FEATURES, PROTOCOL_MAJOR, PROTOCOL_MINOR, now_ms
from fl_runtime.patience import AGAIN_S
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import versions

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")
_LAST = 2**63 - 1  # the largest number that the store takes
_MAX_HELLO = 64 * 1024
SETTLE_S = 3.0  # after a job's end, for the sites to send the rest of their logs


class HubService:
    """Connect, Submit, Ask, Watch, Command, Revoke."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def connect(self, messages: Iterator[pb.ToHub], context: grpc.ServicerContext) -> Iterator[pb.ToParticipant]:
        identity = self._hub.gate.admit(context, ("site",))
        first = next(messages, None)
        if first is None or first.WhichOneof("body") != "hello":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the first message must be a Hello")
            raise AssertionError
        if first.ByteSize() > _MAX_HELLO:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a Hello has at most {_MAX_HELLO} bytes")
        hello = first.hello
        refusal = versions.refusal(hello)
        if refusal is not None:
            yield pb.ToParticipant(refusal=refusal)
            return
        skew = abs(now_ms() - hello.clock_ms) / 1000
        if skew > 60:
            log.warning("%s: its clock is %.0f s away from ours", identity.name, skew)
        session = Session(
            identity=identity,
            incarnation=hello.incarnation,
            version=hello.version,
            labels=dict(hello.labels),
            address=context.peer(),
            context=context,
            major=hello.major,
            features=frozenset(hello.features),
        )
        context.add_callback(lambda: self._hub.sessions.leave(session))
        try:
            self._hub.store.saw(
                identity.name, identity.role, identity.serial, hello.version, dict(hello.labels), session.address
            )
        except StorageError as error:  # a full disk is no reason to lose a site
            log.error("%s: what it says of itself can't be stored: %s", identity.name, error)
        yield pb.ToParticipant(
            welcome=pb.Welcome(
                major=session.major,
                minor=PROTOCOL_MINOR if session.major == PROTOCOL_MAJOR else hello.minor,
                features=FEATURES,
                incarnation=self._hub.incarnation,
                clock_ms=now_ms(),
                version=version(),
                federation=self._hub.kit.federation,
            )
        )
        current = self._hub.revocations.current
        if current is not None:
            session.send(revocations=pb.Revocations(document=current.document, signature=current.signature))
        self._hub.sessions.enter(session)
        # not before: what it says at once (that it is still at a job that is over) has its answer by this stream
        threading.Thread(target=self._read, args=(session, messages), name=f"in-{identity.name}", daemon=True).start()
        try:
            while (message := session.out.get()) is not None:
                yield message
        finally:
            self._hub.sessions.leave(session)

    def _read(self, session: Session, messages: Iterator[pb.ToHub]) -> None:
        try:
            for message in messages:
                session.heard = time.monotonic()
                if session.ended:
                    break
                self._hub.on_message(session, message)
        except grpc.RpcError:
            log.debug("%s: its stream broke", session.identity.name)
        except StorageError as error:  # it says it again over its next connection
            log.error("%s: what it said can't be stored: %s", session.identity.name, error)
            time.sleep(AGAIN_S)
        except ProtocolError as error:
            log.error("%s: its stream is ended: %s", session.identity.name, error)
        except Exception:
            log.exception("%s: its message could not be handled", session.identity.name)
        finally:
            self._hub.sessions.leave(session)

    # --- admins

    def submit(self, request: pb.SubmitRequest, context: grpc.ServicerContext) -> pb.SubmitReply:
        identity = self._hub.gate.admit(context, ("admin",))
        return self._hub.desk.submit(identity, request, context)

    def ask(self, question: pb.Question, context: grpc.ServicerContext) -> pb.Answer:
        identity = self._hub.gate.admit(context, ("admin",))
        return self._hub.desk.ask(identity, question, context)

    def command(self, order: pb.Order, context: grpc.ServicerContext) -> pb.Answer:
        """An order to sites or to this server, signed by the admin who calls."""
        identity = self._hub.gate.admit(context, ("admin",))
        return self._hub.desk.command(identity, order, context)

    def revoke(self, request: pb.Revocations, context: grpc.ServicerContext) -> pb.RevokeReply:
        """Take a list of revoked certificates. Any admin may bring it: what counts is the CA's signature."""
        identity = self._hub.gate.admit(context, ("admin",))
        try:
            if self._hub.revocations.offer(request.document, request.signature):
                log.info("%s brought the list of revoked certificates", identity.name)
        except FlError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        current = self._hub.revocations.current
        return pb.RevokeReply(number=current.number if current is not None else 0)

    def watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchEvent]:
        """Events (and logs) of a job as they come, until it has ended."""
        identity = self._hub.gate.admit(context, ("admin",))
        self._hub.desk.check(identity, "watch", context)
        hub, after = self._hub, min(request.after, _LAST)
        offsets: dict[str, int] = dict(request.offsets)
        while context.is_active():
            seen = hub.change_number()
            job = hub.store.job(request.job)
            if job is None:
                context.abort(grpc.StatusCode.NOT_FOUND, f"there is no job {request.job}")
                raise AssertionError
            for number, document in hub.store.events(job.id, after):
                after = number
                yield pb.WatchEvent(number=number, document=_json(document))
            logs = False
            if request.logs:
                for who in hub.logs.participants(job.id):
                    if request.participant and who != request.participant:
                        continue
                    while data := hub.logs.read(job.id, who, offsets.get(who, 0)):
                        offsets[who] = offsets.get(who, 0) + len(data)
                        logs = True
                        text = data.decode(errors="replace")
                        piece = {"event": "log", "site": who, "text": text, "offset": offsets[who]}
                        yield pb.WatchEvent(number=after, document=_json(piece))
            over = job.ended is not None and (hub.jobs.settled(job) or time.time() - job.ended > SETTLE_S)
            if over and not logs:
                yield pb.WatchEvent(
                    number=after, document=_json({"event": "end", "state": job.state, "cause": job.cause})
                )
                return
            hub.wait_change(seen, 0.3 if request.logs or job.ended else 5.0)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


class Alive:
    """The service Blobs, with an ear on it: each chunk that comes or is taken is a sign of life of the participant.

    A link that a model fills may hold up the heartbeats on the connection beside it; such a site is busy, not lost.
    """

    def __init__(self, bulk: Any, hub: Hub) -> None:
        self._bulk = bulk
        self._hub = hub
        self.describe, self.offer = bulk.describe, bulk.offer

    def pull(self, request: pb.PullRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        with contextlib.suppress(HungUpError):
            for chunk in self._bulk.pull(request, context):
                self._heard(context)
                yield chunk

    def push(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> pb.PushReply:
        def heard() -> Iterator[bytes]:
            for frame in frames:
                self._heard(context)
                yield frame

        with contextlib.suppress(HungUpError):
            reply: pb.PushReply = self._bulk.push(heard(), context)
            return reply
        return pb.PushReply()  # to nobody

    def _heard(self, context: grpc.ServicerContext) -> None:
        identity = self._hub.gate.who(context)
        if identity is not None:
            self._hub.sessions.heard(identity.name)
