"""Who is connected: one session for each participant, fed by its stream, lost after 4.5 s of silence."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from fl_runtime.names import LOST_AFTER_S, PROTOCOL_MAJOR
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import versions
from fl_runtime.wire.identity import Identity


@dataclass(eq=False)
class Session:
    """A participant's open stream. `out` is what the stream's thread sends; None ends it.

    `major` is the protocol that both sides speak: messages that it does not know are not sent.
    """

    identity: Identity
    incarnation: str
    version: str
    labels: dict[str, str]
    address: str
    context: grpc.ServicerContext
    major: int = PROTOCOL_MAJOR
    features: frozenset[str] = frozenset()
    out: queue.SimpleQueue[pb.ToParticipant | None] = field(default_factory=queue.SimpleQueue)
    since: float = field(default_factory=time.time)
    heard: float = field(default_factory=time.monotonic)
    ended: bool = False

    def send(self, **body: Any) -> None:
        if not self.ended and all(versions.knows(self.major, kind) for kind in body):
            self.out.put(pb.ToParticipant(**body))

    def end(self, cancel: bool = False) -> None:
        if not self.ended:
            self.ended = True
            self.out.put(None)
        if cancel:
            self.context.cancel()  # type: ignore[no-untyped-call]  # the stubs forgot to type it


class Sessions:
    """The register. Callbacks run on the thread that brought the change, without a lock held."""

    def __init__(self, on_connect: Callable[[str], None], on_lost: Callable[[str], None]) -> None:
        self._sessions: dict[str, Session] = {}
        self._gone: dict[str, float] = {}
        self._lock = threading.Lock()
        self._on_connect = on_connect
        self._on_lost = on_lost
        self._started = time.monotonic()

    def enter(self, session: Session) -> None:
        """The newest stream of a participant counts: an older one is a dead link, or a copied kit."""
        name = session.identity.name
        with self._lock:
            older = self._sessions.get(name)
            self._sessions[name] = session
            self._gone.pop(name, None)
        if older is not None:
            older.send(
                refusal=pb.Refusal(
                    what=f"Another process connected as {name}",
                    why=f"from {session.address}",
                    next="run each kit in one place only",
                )
            )
            older.end()
        self._on_connect(name)

    def leave(self, session: Session) -> None:
        session.end()
        name = session.identity.name
        with self._lock:
            if self._sessions.get(name) is not session:
                return
            del self._sessions[name]
            self._gone[name] = time.monotonic()
        self._on_lost(name)

    def get(self, name: str) -> Session | None:
        with self._lock:
            return self._sessions.get(name)

    def send(self, name: str, **body: Any) -> bool:
        """Push a message; False when the participant is not connected (it gets what it needs when it returns)."""
        session = self.get(name)
        if session is None:
            return False
        session.send(**body)
        return True

    def connected(self) -> list[str]:
        with self._lock:
            return sorted(self._sessions)

    def lost_for(self, name: str) -> float | None:
        """Seconds since the participant was lost (counted from our start for those not seen yet); None = connected."""
        with self._lock:
            if name in self._sessions:
                return None
            return time.monotonic() - self._gone.get(name, self._started)

    def end_silent(self) -> None:
        """End the sessions that were silent for too long."""
        limit = time.monotonic() - LOST_AFTER_S
        with self._lock:
            silent = [session for session in self._sessions.values() if session.heard < limit]
        for session in silent:
            session.end(cancel=True)
            self.leave(session)

    def heard(self, name: str) -> None:
        """Bytes of the participant came on another connection of its: it is not lost."""
        session = self.get(name)
        if session is not None:
            session.heard = time.monotonic()

    def tell_all(self, **body: Any) -> None:
        """Push a message to everybody who is connected and understands it."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.send(**body)

    def close(self) -> None:
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.end()
