"""Who is not what it seems: a server whose kit was stolen, and a site that speaks the protocol by hand."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from federation import Federation, until

from fl_runtime.kit import read_kit
from fl_runtime.names import FEATURES, PROTOCOL_MAJOR, now_ms
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls


class StolenServer:
    """The server's kit in other hands, at the server's port: it welcomes sites and sends them what it likes."""

    def __init__(self, fed: Federation) -> None:
        self.kit = read_kit(fed.server.kit)
        self._out: dict[str, queue.SimpleQueue[pb.ToParticipant | None]] = {}
        self._heard: list[tuple[str, pb.ToHub]] = []
        self._server = tls.server(self.kit, 32)
        self._server.add_generic_rpc_handlers((rpc.hub_handlers(self),))
        self._server.add_secure_port(f"127.0.0.1:{fed.port}", tls.server_credentials(self.kit))
        self._server.start()

    def connect(self, messages: Iterator[pb.ToHub], context: Any) -> Iterator[pb.ToParticipant]:
        next(messages)
        labels = context.auth_context()["x509_common_name"]
        name = labels[0].decode()
        out: queue.SimpleQueue[pb.ToParticipant | None] = queue.SimpleQueue()

        def read() -> None:
            with contextlib.suppress(Exception):
                for message in messages:
                    if message.WhichOneof("body") == "heartbeat":
                        out.put(pb.ToParticipant(heartbeat=pb.Heartbeat(clock_ms=now_ms())))
                    else:
                        self._heard.append((name, message))
            out.put(None)  # the site is gone: nobody waits for it, or the pool's thread would keep this process alive

        threading.Thread(target=read, daemon=True).start()
        yield pb.ToParticipant(
            welcome=pb.Welcome(
                major=PROTOCOL_MAJOR, features=FEATURES, incarnation="stolen", clock_ms=now_ms(), federation="digits"
            )
        )
        self._out[name] = out
        while (message := out.get()) is not None:
            yield message

    def __getattr__(self, name: str) -> Any:
        return lambda request, context: None  # what it does not serve

    def send(self, site: str, **body: Any) -> None:
        until(lambda: site in self._out, what=f"{site} came to the stolen server")
        self._out[site].put(pb.ToParticipant(**body))

    def heard(self, site: str, kind: str, timeout: float = 15.0) -> Any:
        """The next message of this kind from a site."""

        def found() -> Any:
            for number, (name, message) in enumerate(self._heard):
                if name == site and message.WhichOneof("body") == kind:
                    del self._heard[number]
                    return getattr(message, kind)
            return None

        return until(found, timeout, f"{kind} of {site}")

    def close(self) -> None:
        for out in self._out.values():
            out.put(None)
        self._server.stop(0.5).wait(5)


@contextlib.contextmanager
def stolen_server(fed: Federation) -> Iterator[StolenServer]:
    """In the place of the server, which is stopped."""
    fed.server.stop()
    made = StolenServer(fed)
    try:
        yield made
    finally:
        made.close()


class Puppet:
    """A site's kit in the hands of somebody who sends what they like."""

    def __init__(self, kit: Path) -> None:
        self.kit = read_kit(kit)
        self._channel = tls.channel(self.kit, self.kit.endpoint(), bulk=True)
        self.blobs = rpc.BlobsStub(self._channel)
        self._out: queue.SimpleQueue[pb.ToHub | None] = queue.SimpleQueue()
        self.got: list[pb.ToParticipant] = []
        self.send(hello=pb.Hello(major=PROTOCOL_MAJOR, features=FEATURES, clock_ms=now_ms(), version="0"))
        self._call = rpc.HubStub(self._channel).connect(iter(self._out.get, None))
        threading.Thread(target=self._read, daemon=True).start()
        self.beating = True
        threading.Thread(target=self._beat, daemon=True).start()
        self.wait("welcome")

    def _beat(self) -> None:
        import time

        while self.beating:
            self.send(heartbeat=pb.Heartbeat(clock_ms=now_ms()))
            time.sleep(1.0)

    def _read(self) -> None:
        with contextlib.suppress(Exception):
            for message in self._call:
                self.got.append(message)
                if message.WhichOneof("body") == "reserve":
                    asked, figures = message.reserve, json.dumps({"slots": 1}).encode()
                    self.send(reserved=pb.Reserved(job=asked.job, granted=True, attempt=asked.attempt, figures=figures))

    def send(self, **body: Any) -> None:
        self._out.put(pb.ToHub(**body))

    def wait(self, kind: str, timeout: float = 15.0) -> Any:
        """The newest message of this kind, once there is one."""

        def found() -> Any:
            hits = [message for message in self.got if message.WhichOneof("body") == kind]
            return getattr(hits[-1], kind) if hits else None

        return until(found, timeout, kind)

    def close(self) -> None:
        self.beating = False
        self._out.put(None)
        self._call.cancel()
        self._channel.close()
