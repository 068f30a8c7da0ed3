"""`Session`: everything that an admin may ask of a federation, and everything that they may do."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from fl_runtime.admin import transfer
from fl_runtime.admin.connection import TIMEOUT_S, Connection
from fl_runtime.admin.plot import draw
from fl_runtime.admin.results import write_results
from fl_runtime.blobs import Manifest, of_bytes
from fl_runtime.errors import FlError, JobError, RefusedError
from fl_runtime.job.bundle import job_folder, pack, unpack
from fl_runtime.job.envelope import seal
from fl_runtime.job.spec import JobSpec, read_spec
from fl_runtime.names import new_job_id
from fl_runtime.orders import RESTART, SHUTDOWN, seal_order
from fl_runtime.proto import fedspan_pb2 as pb

FINAL = ("FINISHED", "FAILED", "ABORTED")
_SETTLE_S = 3.0
_ORDER_S = 30.0


class Session:
    """A connection to the server of a federation with an admin's kit. Errors are `FlError`s that say what to do.

    Who may do what (enforced by the server): an observer looks (`sites, resources, jobs, show, logs, monitor`); a
    member also submits, clones and downloads, and aborts and deletes jobs of their own; a lead may do everything.
    """

    def __init__(self, kit: Path | str) -> None:
        self._connection = Connection(kit)
        self.kit = self._connection.kit

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # --- questions

    def sites(self) -> dict[str, dict[str, Any]]:
        """Every participant that ever registered: registered, last_seen, version, labels, address."""
        return cast("dict[str, dict[str, Any]]", self._connection.ask("sites"))

    def resources(self) -> dict[str, dict[str, Any]]:
        """What each site has and what of it is free, as the site last said: gpus, memory, slots, free, jobs."""
        return cast("dict[str, dict[str, Any]]", self._connection.ask("resources"))

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, oldest first: id, name, state, cause, detail, round, rounds, times."""
        return cast("list[dict[str, Any]]", self._connection.ask("jobs"))

    list = jobs

    def show(self, job: str) -> dict[str, Any]:
        """Everything about one job: as in `jobs()`, and spec, sites, history, metrics, model."""
        return cast("dict[str, Any]", self._connection.ask("show", job))

    def logs(self, job: str, participant: str | None = None, follow: bool = False) -> Iterator[tuple[str, str]]:
        """(participant, text) pieces of the job's logs; with `follow` until the job has ended."""
        if follow:
            for event in self._connection.watch(job, logs=True, participant=participant or ""):
                if event.get("event") == "log":
                    yield event["site"], event["text"]
            return
        who = [participant] if participant else self.show(job)["logs"]
        for name in who:
            offset = 0
            while data := self._connection.question("log", job, name, offset).data:
                offset += len(data)
                yield name, data.decode(errors="replace")

    def monitor(self, job: str, callback: Callable[[dict[str, Any]], bool | None]) -> dict[str, Any]:
        """Call back for every event of the job, from its first, until it has ended or the callback returns False.

        Events: submitted, accepted, refused, round (metrics, sites), left, failed, restarted, ended. A lost connection
        is taken up again, also over a restart of the server: each event comes once. Returns `show(job)`.
        """
        with contextlib.closing(self._connection.watch(job)) as events:
            for event in events:
                if event.get("event") == "end" or callback(event) is False:
                    break
        return self.show(job)

    def wait(self, job: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the job's end.

        Raises:
            JobError: it failed, was aborted, or is not over after `timeout` seconds.
        """
        end = time.monotonic() + timeout if timeout is not None else None
        for event in self._connection.watch(job, deadline=end):
            if event.get("event") == "end":
                break
        view = self.show(job)
        if view["state"] not in FINAL:
            raise JobError(
                f"Job {job} is not over after {timeout:g} s",
                why=view["detail"] or view["state"],
                next_step=f"fedspan job show {job}",
            )
        if view["state"] != "FINISHED":
            raise JobError(
                f"Job {job} has {view['state'].lower()}", why=view["cause"], next_step=f"fedspan job logs {job}"
            )
        return view

    # --- jobs

    def submit(self, job: Path | str, job_id: str | None = None) -> str:
        """Pack, sign and submit a job, a folder or a zip; its id. Done again with the same id, it changes nothing.

        Raises:
            JobSpecError: job.yml, or what it lies in, is not what a job must be.
        """
        with job_folder(Path(job)) as folder:
            return self._submit(read_spec(folder), pack(folder), job_id)

    def _submit(self, spec: JobSpec, data: bytes, job_id: str | None) -> str:
        manifest = of_bytes(data)
        job = job_id or new_job_id(spec.name)
        document, signature, certificate = seal(self.kit, job, manifest.id, manifest.length, spec.sites)
        request = pb.SubmitRequest(
            job=job,
            envelope=pb.Envelope(document=document, signature=signature, certificate=certificate),
            spec=json.dumps(spec.document()).encode(),
            bundle=pb.Manifest(length=manifest.length, leaves=manifest.leaves),
        )
        # the id was chosen here, so that asking twice makes one job
        reply = self._connection.repeat(lambda: self._connection.hub.submit(request, timeout=TIMEOUT_S))
        if not reply.complete:
            transfer.upload(self._connection, job, manifest, data)
        return job

    def clone(self, job: str, job_id: str | None = None) -> str:
        """Submit a job's bundle once more, signed by this kit; the new job's id.

        The bundle comes from the server and is what the first submitter signed: their signature is checked here.

        Raises:
            RefusedError: the server's copy is not what was signed.
        """
        known = self._connection.ask("envelope", job)
        digest = verified_bundle(self, job, known)
        with tempfile.TemporaryDirectory(prefix="fedspan-clone-") as scratch:
            file = Path(scratch) / "bundle.zip"
            transfer.fetch(self._connection, job, digest, file)
            data = file.read_bytes()
            unpack(data, Path(scratch) / "bundle")
            spec = read_spec(Path(scratch) / "bundle")
        return self._submit(spec, data, job_id)

    def abort(self, job: str) -> dict[str, Any]:
        """End a job; one that has ended stays as it is."""
        return cast("dict[str, Any]", self._connection.ask("abort", job))

    def delete(self, job: str) -> None:
        """Forget a job that has ended: its blobs, logs and everything that the server knows of it.

        Raises:
            RefusedError: it has not ended.
        """
        self._connection.ask("delete", job)

    def download(self, job: str, dest: Path | str) -> Path:
        """Fetch what a job has made into `dest/JOB`: model.safetensors, best.safetensors, metrics.json, history.csv,
        logs/NAME.log, and plot.png where matplotlib is installed.

        A download that was broken off goes on where it ended, also in another process.
        """
        view = self.show(job)
        until = time.monotonic() + _SETTLE_S
        while view["state"] in FINAL and not view["settled"] and time.monotonic() < until:
            time.sleep(0.1)  # the sites send the rest of their logs
            view = self.show(job)
        target = Path(dest) / job
        Path(dest).mkdir(parents=True, exist_ok=True)

        def fetch(blob: str, path: Path) -> None:
            transfer.fetch(self._connection, job, bytes.fromhex(blob), path)

        def log(name: str, path: Path) -> None:
            with open(path, "w") as file:
                for _, text in self.logs(job, name):
                    file.write(text)

        write_results(view, target, fetch, log)
        draw(target)
        return target

    # --- sites

    def restart(self, *sites: str) -> dict[str, dict[str, Any]]:
        """Have sites (or `server`) start their process again; running jobs go on afterwards.

        The order is signed by this kit; each site checks it against `operators` of its local/policy.yml (default:
        leads). Returns name -> {accepted, why}.
        """
        return self._order(RESTART, sites)

    def shut_down(self, *sites: str) -> dict[str, dict[str, Any]]:
        """Have sites (or `server`) stop. Whoever runs them has to start them again."""
        return self._order(SHUTDOWN, sites)

    def _order(self, action: str, targets: Sequence[str]) -> dict[str, dict[str, Any]]:
        if not targets:
            raise RefusedError("Nobody was named", next_step=f"fedspan site {action} SITE")
        document, signature, certificate = seal_order(self.kit, action, targets)
        order = pb.Order(document=document, signature=signature, certificate=certificate)
        answer = self._connection.call(lambda: self._connection.hub.command(order, timeout=_ORDER_S))
        return cast("dict[str, dict[str, Any]]", json.loads(answer.document))

    def revoke(self, document: bytes, signature: bytes) -> int:
        """Hand the server a list of revoked certificates that the CA has signed; the number of the list that holds."""
        reply = self._connection.call(
            lambda: self._connection.hub.revoke(
                pb.Revocations(document=document, signature=signature), timeout=TIMEOUT_S
            )
        )
        return int(reply.number)


def verified_bundle(session: Session, job: str, known: dict[str, str]) -> bytes:
    """The digest of a job's bundle, from the envelope that its submitter signed, however long ago.

    Raises:
        RefusedError: the envelope is not of this federation's CA, or of another job.
    """
    from fl_runtime.job.envelope import open_envelope

    document, signature = bytes.fromhex(known["document"]), bytes.fromhex(known["signature"])
    envelope = open_envelope(session.kit, document, signature, known["certificate"].encode(), at_any_time=True)
    if envelope.job != job:
        raise RefusedError(f"The server gave the envelope of another job than {job}", next_step="fedspan job list")
    return envelope.bundle


__all__ = ["FINAL", "FlError", "Manifest", "Session"]
