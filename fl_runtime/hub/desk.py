"""What admins may ask of the hub."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import grpc

from fl_runtime.agent.place import clear
from fl_runtime.blobs import Manifest
from fl_runtime.errors import NONSENSE, FlError, RefusedError
from fl_runtime.hub.roles import may_not
from fl_runtime.hub.state import ABORTED, FINAL, RECEIVING, Job
from fl_runtime.job.bundle import MAX_PACKED
from fl_runtime.job.envelope import open_envelope
from fl_runtime.job.spec import parse_spec
from fl_runtime.names import is_participant_name, iso
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.identity import Identity

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub

log = logging.getLogger("fedspan.hub")


class Desk:
    """Submissions and questions, already authenticated."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def submit(self, identity: Identity, request: pb.SubmitRequest, context: grpc.ServicerContext) -> pb.SubmitReply:
        """Take a signed job. It is queued when its bundle is here too; doing it again changes nothing."""
        hub = self._hub
        self.check(identity, "submit", context)
        try:
            envelope = open_envelope(
                hub.kit, request.envelope.document, request.envelope.signature, request.envelope.certificate
            )
            if envelope.signer.name != identity.name or envelope.job != request.job:
                raise FlError("The envelope was signed by another, or for another job")
            if hub.revocations.is_revoked(envelope.signer.serial):
                raise FlError("The signer's certificate is revoked")
            spec = parse_spec(json.loads(request.spec))
            manifest = Manifest(request.bundle.length, request.bundle.leaves)
            if manifest.id != envelope.bundle or manifest.length != envelope.bundle_length:
                raise FlError("The bundle is not the one that was signed")
            if not 0 < manifest.length <= MAX_PACKED:
                raise FlError(f"The bundle has {manifest.length} bytes", why=f"at most {MAX_PACKED} are taken")
        except (FlError, *NONSENSE) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        job = Job(
            id=envelope.job,
            name=spec.name,
            spec=spec.document(),
            submitter=identity.name,
            envelope=request.envelope.document,
            signature=request.envelope.signature,
            certificate=request.envelope.certificate,
            bundle=manifest.id,
            bundle_length=manifest.length,
            state=RECEIVING,
        )
        with hub.store.tx():
            new = hub.store.add_job(job)
            if new:
                hub.store.add_event(job.id, {"event": "submitted", "by": identity.name})
        known = hub.store.job(job.id)
        # A submission that is sent again is sealed again, with another time: what counts is what was submitted.
        if known is None or (known.submitter, known.bundle, known.spec) != (job.submitter, job.bundle, job.spec):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"there is another job {job.id}")
        if known is not None and known.state == RECEIVING:
            incoming = hub.blobs.receive(manifest, f"job:{job.id}:bundle")
            if incoming is not None:
                return pb.SubmitReply(complete=False)
            hub.bundle_arrived(job.id)
        return pb.SubmitReply(complete=True)

    def ask(self, identity: Identity, question: pb.Question, context: grpc.ServicerContext) -> pb.Answer:
        """`verb` is sites, resources, jobs, show, envelope, abort, delete or log."""
        hub = self._hub
        self.check(identity, question.verb, context)
        if question.verb == "sites":
            return _answer(hub.site_table())
        if question.verb == "resources":
            return _answer(hub.jobs.resources())
        if question.verb == "jobs":
            return _answer([self.brief(job) for job in hub.store.jobs()])
        job = hub.store.job(question.job)
        if job is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no job {question.job}")
            raise AssertionError
        if question.verb == "show":
            return _answer(self.full(job))
        if question.verb == "envelope":
            sealed = {"document": job.envelope.hex(), "signature": job.signature.hex()}
            return _answer({**sealed, "certificate": job.certificate.decode()})
        self.check(identity, question.verb, context, job)
        if question.verb == "delete":
            return _answer(self._delete(identity, job, context))
        if question.verb == "abort":
            if job.state not in FINAL:
                hub.jobs.end(job.id, ABORTED, f"by {identity.name}")
            return _answer(self.brief(hub.store.job(job.id) or job))
        if question.verb == "log":
            who = question.participant or "server"
            if not is_participant_name(who):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{who!r} is no participant")
            data = hub.logs.read(job.id, who, question.offset)
            return pb.Answer(document=json.dumps({"participants": hub.logs.participants(job.id)}).encode(), data=data)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"this server does not know {question.verb!r}")
        raise AssertionError

    def check(self, identity: Identity, verb: str, context: grpc.ServicerContext, job: Job | None = None) -> None:
        """Abort the call when this admin's role does not allow it."""
        why = may_not(identity, verb, job)
        if why is not None:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{why}\nask a lead of the federation")

    def _delete(self, identity: Identity, job: Job, context: grpc.ServicerContext) -> dict[str, Any]:
        """Forget a job that has ended: its rows and references at once, then its files."""
        hub = self._hub
        if job.state not in FINAL:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{job.id} is {job.state.lower()}: only what has ended can be deleted\nfedspan job abort {job.id}",
            )
        with hub.store.tx():
            hub.store.delete_job(job.id)
            hub.blobs.drop_refs(f"job:{job.id}:")
        hub.blobs.abandon(f"job:{job.id}:")
        hub.blobs.collect()
        hub.logs.remove(job.id)
        clear(hub.state / "jobs" / job.id)
        log.info("%s: deleted by %s", job.id, identity.name)
        hub.changed()
        return {"id": job.id, "deleted": True}

    def command(self, identity: Identity, order: pb.Order, context: grpc.ServicerContext) -> pb.Answer:
        """Pass an order on; what each of those ordered says."""
        self.check(identity, "order", context)
        try:
            return _answer(self._hub.orders.command(identity, order))
        except RefusedError as error:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, error.why or error.what)
            raise AssertionError from None

    def brief(self, job: Job) -> dict[str, Any]:
        """A job in one line."""
        rounds = job.spec["workflow"].get("rounds")
        last = self._hub.store.last_boundary(job.id)
        end = job.ended or time.time()
        return {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "cause": job.cause,
            "detail": self._hub.jobs.detail(job) if job.state not in FINAL else "",
            "submitter": job.submitter,
            "submitted": iso(job.submitted),
            "started": iso(job.started),
            "ended": iso(job.ended),
            "seconds": round(end - job.started, 3) if job.started else None,
            "round": min(last.round + 1, int(rounds or last.round + 1)) if last else 0,
            "rounds": rounds,
        }

    def full(self, job: Job) -> dict[str, Any]:
        """Everything about a job but its logs."""
        store = self._hub.store
        boundaries = store.boundaries(job.id)
        history = [
            {"round": entry.round, "at": iso(entry.at), **entry.metrics} for entry in boundaries if entry.round >= 0
        ]
        models = [entry for entry in boundaries if entry.model]
        model = models[-1].model if models else None
        answered: dict[str, str] = {}
        if job.state not in FINAL:
            for call in store.open_calls(job.id):
                for task in store.tasks(job.id, call.round, call.index):
                    answered[task.site] = task.state
        best = boundaries[-1].state["tensors"].get("best") if boundaries else None
        return {
            **self.brief(job),
            "spec": job.spec,
            "sites": {
                site: {"state": state, "why": why, "task": answered.get(site)}
                for site, (state, why) in store.sites(job.id).items()
            },
            "history": history,
            "metrics": store.metrics(job.id),
            "model": self._described(model),
            "best": self._described(bytes.fromhex(best)) if best else None,
            "best_metric": boundaries[-1].state["state"].get("best") if best else None,
            "logs": self._hub.logs.participants(job.id),
            "settled": self._hub.jobs.settled(job),
        }

    def _described(self, blob: bytes | None) -> dict[str, Any] | None:
        manifest = self._hub.blobs.manifest(blob) if blob else None
        return {"blob": blob.hex(), "length": manifest.length} if blob and manifest else None


def _answer(document: Any) -> pb.Answer:
    return pb.Answer(document=json.dumps(document).encode())
