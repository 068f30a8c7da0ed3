"""An admin's connection to the server: calls that are made again after a break, and errors that say what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar, cast

from fl_runtime.errors import FlError, JobError, KitError, RefusedError, UnreachableError
from fl_runtime.kit import read_kit
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls
from fl_runtime.wire.probe import probe

import grpc  # isort: skip - after wire.tls, which sets what gRPC reads at import

TIMEOUT_S = 30.0  # of one call
AGAIN_S = 60.0  # a call that may be repeated is, for so long, while the server is away or busy
T = TypeVar("T")


class Connection:
    """With an admin's kit. All methods raise `FlError`s."""

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
        self.hub = rpc.HubStub(self._channel)
        self.blobs = rpc.BlobsStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def ask(self, verb: str, job: str = "") -> Any:
        """A question whose answer is JSON."""
        return json.loads(self.question(verb, job).document)

    def question(self, verb: str, job: str = "", participant: str = "", offset: int = 0) -> pb.Answer:
        question = pb.Question(verb=verb, job=job, participant=participant, offset=offset)
        return cast(pb.Answer, self.call(lambda: self.hub.ask(question, timeout=TIMEOUT_S)))

    def call(self, action: Callable[[], T]) -> T:
        """Once; only while the server is busy again."""
        return self.repeat(action, (grpc.StatusCode.RESOURCE_EXHAUSTED,))

    def repeat(
        self,
        action: Callable[[], T],
        codes: tuple[grpc.StatusCode, ...] = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE),
        patience: float = AGAIN_S,
    ) -> T:
        """Do it until it is done; with `codes` it is tried again for `patience` seconds."""
        until = time.monotonic() + patience
        pause = 0.1
        while True:
            try:
                return action()
            except grpc.RpcError as error:
                if error.code() not in codes or time.monotonic() > until:
                    raise self.translate(error) from None
            time.sleep(pause)
            pause = min(2.0, pause * 1.6)

    def watch(
        self, job: str, logs: bool = False, participant: str = "", deadline: float | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Events of a job as they come, from the first. A lost connection is taken up again where it broke."""
        after, offsets = 0, dict[str, int]()
        since: float | None = None
        while True:
            timeout = None if deadline is None else max(0.01, deadline - time.monotonic())
            try:
                request = pb.WatchRequest(job=job, after=after, logs=logs, participant=participant, offsets=offsets)
                for event in self.hub.watch(request, timeout=timeout):
                    after, since = event.number, None
                    document = json.loads(event.document)
                    if document.get("event") == "log":
                        offsets[document["site"]] = int(document.pop("offset"))
                    yield document
                    if document.get("event") == "end":
                        return
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    return
                since = since or time.monotonic()
                passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
                if error.code() not in passing or time.monotonic() - since > 2 * AGAIN_S:
                    raise self.translate(error) from None
                time.sleep(min(1.0, 0.1 + (time.monotonic() - since) / 4))

    def translate(self, error: grpc.RpcError) -> FlError:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.NOT_FOUND:
            return JobError(details, next_step="fedspan job list")
        if code is grpc.StatusCode.FAILED_PRECONDITION:
            what, _, step = details.partition("\n")
            return RefusedError(what, next_step=step or "fedspan job list")
        if code in (
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.ALREADY_EXISTS,
        ):
            why, _, step = details.partition("\n")
            return RefusedError(
                "The server refuses", participant=self.kit.name, why=why, next_step=step or "fedspan job list"
            )
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            found = probe(self.kit, self._endpoint)
            if found is not None:
                return UnreachableError(found.what, participant="server", why=found.why, next_step=found.next_step)
            return UnreachableError(
                f"The server at {self._endpoint.address} does not answer", why=details, next_step="fedspan status"
            )
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return UnreachableError("The server is busy", why=details, next_step="the same command again in a minute")
        return FlError("The server failed", why=f"{code.name}: {details}", next_step="fedspan logs server")
