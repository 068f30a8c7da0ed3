"""The agent's stream to the hub: dialled, kept alive, dialled again; what is wrong is said once."""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from fl_runtime import version
from fl_runtime.agent.attempt import Attempt
from fl_runtime.errors import NONSENSE, FlError
from fl_runtime.kit import Endpoint, Kit
from fl_runtime.names import (
    BACKOFF_S,
    FEATURES,
    HEARTBEAT_S,
    LOST_AFTER_S,
    PROBE_AGAIN_S,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    REFUSED_S,
    TCP_WITHIN_S,
    WELCOME_WITHIN_S,
    now_ms,
)
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, versions
from fl_runtime.wire.probe import Diagnosis, answers, probe

import grpc  # isort: skip - after agent.attempt, which sets what gRPC reads at import

log = logging.getLogger("fedspan.agent")


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
        self.on_beat: Callable[[], None] = lambda: None  # called some times a second, connected or not
        self._incarnation = secrets.token_hex(8)
        self._attempt: Attempt | None = None
        self._stopping = threading.Event()
        self._told: set[tuple[str, str]] = set()  # since the last connection: causes may take turns
        self._major = PROTOCOL_MAJOR
        self._looked: tuple[str, float] = ("", 0.0)  # the failure that was looked into last, and when
        self._dark = False  # nothing answered at all
        self._features: frozenset[str] = frozenset()
        self.since: float | None = None
        self.error: Diagnosis | None = None
        self.server: str | None = None

    # --- for the rest of the agent

    @property
    def connected(self) -> bool:
        attempt = self._attempt
        return attempt is not None and attempt.welcome is not None

    def features(self) -> frozenset[str]:
        """What the server understands, as its last Welcome told."""
        return self._features

    def send(self, **body: Any) -> bool:
        """Send when connected; False otherwise (whoever must not lose it keeps it).

        What a server of the older protocol does not know is not sent to it, and needs no keeping.
        """
        attempt = self._attempt
        if attempt is None or attempt.welcome is None:
            return False
        if all(versions.knows(attempt.major, kind) for kind in body):
            attempt.out.put(pb.ToHub(**body))
        return True

    def send_low(self, **body: Any) -> bool:
        """Send when nothing more important waits; False when not connected, or enough of this kind waits already."""
        attempt = self._attempt
        if attempt is None or attempt.welcome is None:
            return False
        known = all(versions.knows(attempt.major, kind) for kind in body)
        return attempt.out.put_low(pb.ToHub(**body)) if known else True

    def bulk(self) -> rpc.BlobsStub | None:
        """The service Blobs of the present connection."""
        stubs = self.bulk_many(1)
        return stubs[0] if stubs else None

    def bulk_many(self, count: int) -> list[rpc.BlobsStub]:
        """The same over several connections; empty when not connected."""
        attempt = self._attempt
        return attempt.bulk(count) if attempt is not None and attempt.welcome is not None else []

    # --- the loop

    def run(self) -> None:
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        delay = BACKOFF_S[0]
        while not self._stopping.is_set():
            soon = self._once()
            if self._stopping.is_set():
                return
            delay = BACKOFF_S[0] if soon else min(delay * 2, BACKOFF_S[1])
            self._stopping.wait(min(delay * random.uniform(0.75, 1.25), BACKOFF_S[1]))  # noqa: S311 - jitter

    def stop(self) -> None:
        self._stopping.set()
        attempt = self._attempt
        if attempt is not None:
            attempt.close()

    def _once(self) -> bool:
        """One connection from dialling to its end; whether the next attempt should follow soon."""
        try:
            endpoint = self._kit.endpoint()
        except FlError as error:
            self._say(Diagnosis("endpoint", error.what, error.why or "", error.next_step or ""))
            return False
        self.server = endpoint.address
        if self._dark and not answers(endpoint, TCP_WITHIN_S):
            self._look(endpoint, None, True)
            return True  # TCP asks again after 1, 3, 7 s; we ask anew sooner, or an outage's end is seen late
        began = time.monotonic()
        attempt = Attempt(self._kit, endpoint, self._major)
        self._attempt = attempt
        attempt.out.put(
            pb.ToHub(
                hello=pb.Hello(
                    major=self._major,
                    minor=PROTOCOL_MINOR if self._major == PROTOCOL_MAJOR else 0,
                    features=FEATURES,
                    incarnation=self._incarnation,
                    clock_ms=now_ms(),
                    version=version(),
                    labels=self._labels,
                )
            )
        )
        failure: grpc.RpcError | None = None
        refused = older = False
        try:
            for message in attempt.open():
                attempt.heard = time.monotonic()
                kind = message.WhichOneof("body")
                if kind == "welcome":
                    self._welcomed(attempt, message.welcome)
                elif kind == "refusal":
                    refusal = message.refusal
                    older = refusal.major == self._major - 1 == versions.OLDEST_MAJOR
                    if older:
                        log.info("the server speaks protocol %d, and so do we from now on", refusal.major)
                        self._major = refusal.major
                        continue
                    self._say(Diagnosis("refused-by-server", refusal.what, refusal.why, refusal.next))
                    refused = True
                elif kind != "heartbeat":
                    self._take(kind, message)
        except grpc.RpcError as error:
            failure = error
        finally:
            self._attempt = None
            self.since = None
            attempt.close()
        if self._stopping.is_set():
            return False
        self._dark = attempt.silent or (attempt.welcome is None and time.monotonic() - began > 2 * TCP_WITHIN_S)
        if older:
            return True  # with the older protocol
        self._major = PROTOCOL_MAJOR  # it may be another server the next time
        if refused:
            self._stopping.wait(REFUSED_S)
        elif attempt.welcome is not None:
            log.warning("the connection to %s is lost; dialling again", endpoint.address)
        else:
            self._look(endpoint, failure, attempt.silent)
        return attempt.welcome is not None

    def _take(self, kind: str | None, message: pb.ToParticipant) -> None:
        """One message; a server that sends nonsense ends nobody."""
        try:
            self._on_message(message)
        except (FlError, *NONSENSE) as error:
            log.error("the server sent a message (%s) that makes no sense: %r", kind, error)

    def _welcomed(self, attempt: Attempt, welcome: pb.Welcome) -> None:
        attempt.welcome = welcome
        self._features = frozenset(welcome.features)
        attempt.major = welcome.major
        self._looked = ("", 0.0)
        self.since = time.time()
        self.error = None
        self._told.clear()
        log.info("registered with the server of %s at %s", welcome.federation, attempt.endpoint.address)
        skew = abs(now_ms() - welcome.clock_ms) / 1000
        if skew > 60:
            log.warning("this machine's clock is %.0f s away from the server's", skew)
        self._on_welcome()

    def _look(self, endpoint: Endpoint, failure: grpc.RpcError | None, silent: bool) -> None:
        """Find the cause of a failure and tell it, unless the last one looked the same a moment ago.

        Beside the loop: looking may take seconds, and dialling goes on meanwhile.
        """
        looks = "silent" if silent else (failure.details() if failure is not None else "") or ""
        now = time.monotonic()
        if looks == self._looked[0] and now - self._looked[1] < PROBE_AGAIN_S:
            return
        self._looked = (looks, now)

        def look() -> None:
            found = self._diagnose(endpoint, failure)
            if not self.connected and not self._stopping.is_set():
                self._say(found)

        threading.Thread(target=look, name="probe", daemon=True).start()

    def _diagnose(self, endpoint: Endpoint, failure: grpc.RpcError | None) -> Diagnosis:
        code = failure.code() if failure is not None else None
        details = (failure.details() if failure is not None else "") or ""
        if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
            return Diagnosis(
                "refused-by-server",
                f"The server at {endpoint.address} refuses this kit",
                details,
                "ask the federation's lead for a new kit (fedspan provision)",
            )
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Diagnosis("busy", f"The server at {endpoint.address} is busy", details, "it is tried again")
        found = probe(self._kit, endpoint)
        if found is not None:
            return found
        why = details or "it answers, but the stream did not begin"
        return Diagnosis("stream", f"{endpoint.address} did not welcome us", why, "it is tried again")

    def _say(self, diagnosis: Diagnosis) -> None:
        self.error = diagnosis
        if (diagnosis.kind, diagnosis.what) not in self._told:
            self._told.add((diagnosis.kind, diagnosis.what))
            log.error("%s: %s\n  next: %s", diagnosis.what, diagnosis.why, diagnosis.next_step)

    def _beat(self) -> None:
        """Heartbeats out, and the end of an attempt from which nothing was heard for too long."""
        last = 0.0
        while not self._stopping.wait(HEARTBEAT_S / 3):
            self.on_beat()
            attempt = self._attempt
            if attempt is None or attempt.call is None:
                continue
            now = time.monotonic()
            if now - attempt.heard > (LOST_AFTER_S if attempt.welcome is not None else WELCOME_WITHIN_S):
                attempt.silent = True
                attempt.call.cancel()
            elif attempt.welcome is not None and now - last > HEARTBEAT_S - 0.1:
                last = now
                attempt.out.put(pb.ToHub(heartbeat=pb.Heartbeat(clock_ms=now_ms())))
