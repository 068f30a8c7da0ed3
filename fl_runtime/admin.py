"""What an admin does with a federation, from their kit: `Session`.

with Session("kits/ana@hospital-a.example") as session:
    job = session.submit("examples/digits/job")
    session.monitor(job, print)
    session.download(job, "results")
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from fl_runtime.blobs import Manifest, of_bytes
from fl_runtime.errors import FlError, JobError, KitError, RefusedError, UnreachableError
from fl_runtime.job.bundle import pack
from fl_runtime.job.envelope import seal
from fl_runtime.job.spec import read_spec
from fl_runtime.kit import read_kit
from fl_runtime.names import CHUNK, new_job_id
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls
from fl_runtime.wire.probe import probe

import grpc  # isort: skip - after wire.tls, which sets what gRPC reads at import

FINAL = ("FINISHED", "FAILED", "ABORTED")
_TIMEOUT_S = 30.0
_SETTLE_S = 3.0


class Session:
    """A connection to the server of a federation with an admin's kit. Errors are `FlError`s that say what to do."""

    def __init__(self, kit: Path | str) -> None:
        self.kit = read_kit(kit)
        if self.kit.role != "admin":
            admins = sorted(self.kit.path.parent.glob("*@*/startup")) or [self.kit.path.parent / "NAME@…" / "startup"]
            raise KitError(
                "Jobs are submitted and watched with an admin's kit",
                participant=self.kit.name,
                why=f"this is a {self.kit.role}'s",
                next_step=f"the same command with --kit {admins[0].parent}",
            )
        self._endpoint = self.kit.endpoint()
        self._channel = tls.channel(self.kit, self._endpoint, bulk=True)
        self._hub = rpc.HubStub(self._channel)
        self._blobs = rpc.BlobsStub(self._channel)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    # --- questions

    def sites(self) -> dict[str, dict[str, Any]]:
        """Every participant that ever registered: registered, last_seen, version, labels, address."""
        return cast("dict[str, dict[str, Any]]", self._ask("sites"))

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, oldest first: id, name, state, cause, detail, round, rounds, times."""
        return cast("list[dict[str, Any]]", self._ask("jobs"))

    def show(self, job: str) -> dict[str, Any]:
        """Everything about one job: as in `jobs()`, and spec, sites, history, metrics, model."""
        return cast("dict[str, Any]", self._ask("show", job))

    def abort(self, job: str) -> dict[str, Any]:
        """End a job; one that has ended stays as it is."""
        return cast("dict[str, Any]", self._ask("abort", job))

    def logs(self, job: str, participant: str | None = None, follow: bool = False) -> Iterator[tuple[str, str]]:
        """(participant, text) pieces of the job's logs; with `follow` until the job has ended."""
        if follow:
            for event in self._watch(job, logs=True, participant=participant or ""):
                if event.get("event") == "log":
                    yield event["site"], event["text"]
            return
        who = [participant] if participant else self.show(job)["logs"]
        for name in who:
            offset = 0
            while data := self._question("log", job, name, offset).data:
                offset += len(data)
                yield name, data.decode(errors="replace")

    def monitor(self, job: str, callback: Callable[[dict[str, Any]], bool | None]) -> dict[str, Any]:
        """Call back for every event of the job, from its first, until it has ended or the callback returns False.

        Events: submitted, accepted, refused, round (metrics, sites), left, failed, restarted, ended. A lost connection
        is taken up again. Returns `show(job)`.
        """
        for event in self._watch(job):
            if event.get("event") == "end":
                break
            if callback(event) is False:
                break
        return self.show(job)

    def wait(self, job: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the job's end.

        Raises:
            JobError: it failed, was aborted, or is not over after `timeout` seconds.
        """
        end = time.monotonic() + timeout if timeout is not None else None
        for event in self._watch(job, deadline=end):
            if event.get("event") == "end":
                break
        view = self.show(job)
        if view["state"] not in FINAL:
            raise JobError(f"Job {job} is not over after {timeout:g} s", why=view["detail"] or view["state"])
        if view["state"] != "FINISHED":
            raise JobError(
                f"Job {job} has {view['state'].lower()}", why=view["cause"], next_step=f"fedspan job logs {job}"
            )
        return view

    # --- submit and download

    def submit(self, folder: Path | str, job_id: str | None = None) -> str:
        """Pack, sign and submit a job's folder; its id. Done again with the same id, it changes nothing.

        Raises:
            JobSpecError: job.yml or the folder is not what a job must be.
        """
        folder = Path(folder)
        spec = read_spec(folder)
        data = pack(folder)
        manifest = of_bytes(data)
        job = job_id or new_job_id(spec.name)
        document, signature, certificate = seal(self.kit, job, manifest.id, manifest.length, spec.sites)
        request = pb.SubmitRequest(
            job=job,
            envelope=pb.Envelope(document=document, signature=signature, certificate=certificate),
            spec=json.dumps(spec.document()).encode(),
            bundle=pb.Manifest(length=manifest.length, leaves=manifest.leaves),
        )
        reply = self._call(lambda: self._hub.submit(request, timeout=_TIMEOUT_S))
        if not reply.complete:
            self._call(lambda: self._upload(job, manifest, data))
        return job

    def _upload(self, job: str, manifest: Manifest, data: bytes) -> None:
        query = pb.BlobQuery(blob=manifest.id, job=job)
        offer = pb.OfferRequest(job=job, manifest=pb.Manifest(length=manifest.length, leaves=manifest.leaves))
        reply = self._blobs.offer(offer, timeout=_TIMEOUT_S)
        for missing in reply.missing:
            self._blobs.push(_frames(query, missing, data))

    def download(self, job: str, dest: Path | str) -> Path:
        """Fetch what a job has made into `dest/JOB`: model.safetensors, metrics.json, history.csv, logs/NAME.log."""
        view = self.show(job)
        until = time.monotonic() + _SETTLE_S
        while view["state"] in FINAL and not view["settled"] and time.monotonic() < until:
            time.sleep(0.1)  # the sites send the rest of their logs
            view = self.show(job)
        target = Path(dest) / job
        partial = target.with_name(f".{job}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "logs").mkdir(parents=True)
        if view["model"]:
            self._call(lambda: self._fetch(job, bytes.fromhex(view["model"]["blob"]), partial / "model.safetensors"))
        if view["best"]:
            self._call(lambda: self._fetch(job, bytes.fromhex(view["best"]["blob"]), partial / "best.safetensors"))
        (partial / "metrics.json").write_text(json.dumps(view, indent=2) + "\n")
        _write_history(view, partial / "history.csv")
        for name in view["logs"]:
            with open(partial / "logs" / f"{Path(name).name}.log", "w") as file:
                for _, text in self.logs(job, name):
                    file.write(text)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        return target

    def _fetch(self, job: str, blob: bytes, path: Path) -> None:
        query = pb.BlobQuery(blob=blob, job=job)
        described = self._blobs.describe(query, timeout=_TIMEOUT_S)
        manifest = Manifest(described.length, described.leaves)
        request = pb.PullRequest(query=query, range=pb.LeafRange(first=0, count=manifest.count))
        with open(path, "wb") as file:
            for chunk in self._blobs.pull(request):
                file.write(chunk)
        from fl_runtime.blobs import of_file

        if of_file(path).id != blob:
            raise FlError("The model arrived damaged", next_step=f"fedspan job download {job}")

    # --- the wire

    def _ask(self, verb: str, job: str = "") -> Any:
        return json.loads(self._question(verb, job).document)

    def _question(self, verb: str, job: str = "", participant: str = "", offset: int = 0) -> pb.Answer:
        question = pb.Question(verb=verb, job=job, participant=participant, offset=offset)
        return cast(pb.Answer, self._call(lambda: self._hub.ask(question, timeout=_TIMEOUT_S)))

    def _watch(
        self, job: str, logs: bool = False, participant: str = "", deadline: float | None = None
    ) -> Iterator[dict[str, Any]]:
        after, broken = 0, 0
        while True:
            timeout = None if deadline is None else max(0.01, deadline - time.monotonic())
            try:
                request = pb.WatchRequest(job=job, after=after, logs=logs, participant=participant)
                for event in self._hub.watch(request, timeout=timeout):
                    after, broken = event.number, 0
                    document = json.loads(event.document)
                    yield document
                    if document.get("event") == "end":
                        return
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    return
                broken += 1
                if error.code() is not grpc.StatusCode.UNAVAILABLE or broken > 60 or logs:
                    raise self._translate(error) from None
                time.sleep(min(2.0, 0.1 * broken))

    def _call(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except grpc.RpcError as error:
            raise self._translate(error) from None

    def _translate(self, error: grpc.RpcError) -> FlError:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.NOT_FOUND:
            return JobError(details, next_step="fedspan job list")
        if code in (
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.INVALID_ARGUMENT,
        ):
            return RefusedError("The server refuses", participant=self.kit.name, why=details)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            found = probe(self.kit, self._endpoint)
            if found is not None:
                return UnreachableError(found.what, participant="server", why=found.why, next_step=found.next_step)
            return UnreachableError(
                f"The server at {self._endpoint.address} does not answer", why=details, next_step="fedspan status"
            )
        return FlError("The server failed", why=f"{code.name}: {details}")


def _frames(query: pb.BlobQuery, missing: pb.LeafRange, data: bytes) -> Iterator[bytes]:
    from fl_runtime.names import LEAF

    yield pb.PushHeader(query=query, range=missing).SerializeToString()
    start = missing.first * LEAF
    stop = min(start + missing.count * LEAF, len(data))
    for at in range(start, stop, CHUNK):
        yield data[at : min(at + CHUNK, stop)]


def _write_history(view: dict[str, Any], path: Path) -> None:
    """One row for each number: round, site (empty: the mean), metric, value."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "site", "metric", "value"])
        for entry in view["history"]:
            for key, value in (entry.get("metrics") or {}).items():
                writer.writerow([entry["round"], "", key, value])
            for site, values in (entry.get("sites") or {}).items():
                for key, value in values.items():
                    writer.writerow([entry["round"], site, key, value])
