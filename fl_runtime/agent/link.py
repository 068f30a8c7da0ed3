"""The agent's stream to the hub: dialled, kept alive, dialled again; what is wrong is said once."""

from __future__ import annotations

import logging
import queue
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fl_runtime import version
from fl_runtime.errors import FlError
from fl_runtime.kit import Endpoint, Kit
from fl_runtime.names import (
    BACKOFF_S,
    FEATURES,
    HEARTBEAT_S,
    LOST_AFTER_S,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    WELCOME_WITHIN_S,
    now_ms,
)
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls
from fl_runtime.wire.probe import Diagnosis, probe

import grpc  # isort: skip - after wire.tls, which sets what gRPC reads at import

log = logging.getLogger("fedspan.agent")


class Attempt:
    """One connection: control and bulk channel, the stream, and when it was heard last."""

    def __init__(self, kit: Kit, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.out: queue.SimpleQueue[pb.ToHub | None] = queue.SimpleQueue()
        self.welcome: pb.Welcome | None = None
        self.heard = time.monotonic()
        self.silent = False
        self._kit = kit
        self._channel = tls.channel(kit, endpoint)
        self._bulk: grpc.Channel | None = None
        self._lock = threading.Lock()
        self.call: Any = None

    def open(self) -> Iterator[pb.ToParticipant]:
        self.call = rpc.HubStub(self._channel).connect(iter(self.out.get, None))
        stream: Iterator[pb.ToParticipant] = self.call
        return stream

    def bulk(self) -> rpc.BlobsStub:
        with self._lock:
            if self._bulk is None:
                self._bulk = tls.channel(self._kit, self.endpoint, bulk=True)
            return rpc.BlobsStub(self._bulk)

    def close(self) -> None:
        self.out.put(None)
        if self.call is not None:
            self.call.cancel()
        self._channel.close()
        with self._lock:
            if self._bulk is not None:
                self._bulk.close()


class Link:
    """`run()` holds the connection until `stop()`. `on_welcome` and `on_message` are called on its thread."""

    def __init__(
        self,
        kit: Kit,
        labels: Mapping[str, str],
        on_welcome: Callable[[], None],
        on_message: Callable[[pb.ToParticipant], None],
    ) -> None:
        self._kit = kit
        self._labels = dict(labels)
        self._on_welcome = on_welcome
        self._on_message = on_message
        self._incarnation = secrets.token_hex(8)
        self._attempt: Attempt | None = None
        self._stopping = threading.Event()
        self._told: tuple[str, str] | None = None
        self.since: float | None = None
        self.error: Diagnosis | None = None
        self.server: str | None = None

    # --- for the rest of the agent

    @property
    def connected(self) -> bool:
        attempt = self._attempt
        return attempt is not None and attempt.welcome is not None

    def send(self, **body: Any) -> bool:
        """Send when connected; False otherwise (whoever must not lose it keeps it)."""
        attempt = self._attempt
        if attempt is None or attempt.welcome is None:
            return False
        attempt.out.put(pb.ToHub(**body))
        return True

    def bulk(self) -> rpc.BlobsStub | None:
        """The service Blobs of the present connection."""
        attempt = self._attempt
        return attempt.bulk() if attempt is not None and attempt.welcome is not None else None

    # --- the loop

    def run(self) -> None:
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        delay = BACKOFF_S[0]
        while not self._stopping.is_set():
            was_connected = self._once()
            if self._stopping.is_set():
                return
            delay = BACKOFF_S[0] if was_connected else min(delay * 2, BACKOFF_S[1])
            self._stopping.wait(delay * random.uniform(0.75, 1.25))  # noqa: S311 - jitter

    def stop(self) -> None:
        self._stopping.set()
        attempt = self._attempt
        if attempt is not None:
            attempt.close()

    def _once(self) -> bool:
        """One connection from dialling to its end; whether it was ever welcomed."""
        try:
            endpoint = self._kit.endpoint()
        except FlError as error:
            self._say(Diagnosis("endpoint", error.what, error.why or "", error.next_step or ""))
            return False
        self.server = endpoint.address
        attempt = Attempt(self._kit, endpoint)
        self._attempt = attempt
        attempt.out.put(
            pb.ToHub(
                hello=pb.Hello(
                    major=PROTOCOL_MAJOR,
                    minor=PROTOCOL_MINOR,
                    features=FEATURES,
                    incarnation=self._incarnation,
                    clock_ms=now_ms(),
                    version=version(),
                    labels=self._labels,
                )
            )
        )
        failure: grpc.RpcError | None = None
        refused = False
        try:
            for message in attempt.open():
                attempt.heard = time.monotonic()
                kind = message.WhichOneof("body")
                if kind == "welcome":
                    self._welcomed(attempt, message.welcome)
                elif kind == "refusal":
                    refusal = message.refusal
                    self._say(Diagnosis("refused-by-server", refusal.what, refusal.why, refusal.next))
                    refused = True
                elif kind != "heartbeat":
                    self._on_message(message)
        except grpc.RpcError as error:
            failure = error
        finally:
            self._attempt = None
            self.since = None
            attempt.close()
        if self._stopping.is_set():
            return False
        if refused:
            self._stopping.wait(5.0)
        elif attempt.welcome is not None:
            log.warning("the connection to %s is lost; dialling again", endpoint.address)
        else:
            self._say(self._diagnose(endpoint, failure))
        return attempt.welcome is not None

    def _welcomed(self, attempt: Attempt, welcome: pb.Welcome) -> None:
        attempt.welcome = welcome
        self.since = time.time()
        self.error = None
        self._told = None
        log.info("registered with the server of %s at %s", welcome.federation, attempt.endpoint.address)
        skew = abs(now_ms() - welcome.clock_ms) / 1000
        if skew > 60:
            log.warning("this machine's clock is %.0f s away from the server's", skew)
        self._on_welcome()

    def _diagnose(self, endpoint: Endpoint, failure: grpc.RpcError | None) -> Diagnosis:
        code = failure.code() if failure is not None else None
        details = (failure.details() if failure is not None else "") or ""
        if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
            return Diagnosis(
                "refused-by-server", f"The server at {endpoint.address} refuses this kit", details, "ask its owner"
            )
        found = probe(self._kit, endpoint)
        if found is not None:
            return found
        why = details or "it answers, but the stream did not begin"
        return Diagnosis("stream", f"{endpoint.address} did not welcome us", why, "it is tried again")

    def _say(self, diagnosis: Diagnosis) -> None:
        self.error = diagnosis
        if self._told != (diagnosis.kind, diagnosis.what):
            self._told = (diagnosis.kind, diagnosis.what)
            log.error("%s: %s\n  next: %s", diagnosis.what, diagnosis.why, diagnosis.next_step)

    def _beat(self) -> None:
        while not self._stopping.wait(HEARTBEAT_S):
            attempt = self._attempt
            if attempt is None or attempt.call is None:
                continue
            silent = time.monotonic() - attempt.heard
            if silent > (LOST_AFTER_S if attempt.welcome is not None else WELCOME_WITHIN_S):
                attempt.silent = True
                attempt.call.cancel()
            elif attempt.welcome is not None:
                attempt.out.put(pb.ToHub(heartbeat=pb.Heartbeat(clock_ms=now_ms())))
