"""The program's side: the language runtime that the Automation API serves (`--client=HOST:PORT`), and the engine's
own server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, language_pb2, language_pb2_grpc, resource_pb2_grpc

from .events import Stream
from .monitor import Monitor
from .provider import CHANNEL

_SEVERITIES = {
    engine_pb2.DEBUG: "debug",
    engine_pb2.INFO: "info",
    engine_pb2.WARNING: "warning",
    engine_pb2.ERROR: "error",
}
_THREADS = 1024  # a registration holds one until its step is done; they are made when needed only


class EngineService(engine_pb2_grpc.EngineServicer):
    """Takes the log lines of programs and providers."""

    def __init__(self, events: Stream, *, debug: bool) -> None:
        self._events, self._debug, self._root = events, debug, ""

    def Log(self, request: Any, context: Any) -> empty_pb2.Empty:
        severity = _SEVERITIES.get(request.severity, "info")
        if severity != "debug" or self._debug:
            self._events.diagnostic(
                severity, request.message, request.urn, ephemeral=request.ephemeral, stream=request.streamId
            )
        return empty_pb2.Empty()

    def GetRootResource(self, request: Any, context: Any) -> engine_pb2.GetRootResourceResponse:
        return engine_pb2.GetRootResourceResponse(urn=self._root)

    def SetRootResource(self, request: Any, context: Any) -> engine_pb2.SetRootResourceResponse:
        self._root = request.urn
        return engine_pb2.SetRootResourceResponse()

    def RequirePulumiVersion(self, request: Any, context: Any) -> engine_pb2.RequirePulumiVersionResponse:
        return engine_pb2.RequirePulumiVersionResponse()


class Server:
    """One gRPC server on a free loopback port, for the engine service and, while a program runs, the monitor."""

    def __init__(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="monitor"), options=CHANNEL)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def serve(self, engine: EngineService, monitor: Monitor | None) -> None:
        engine_pb2_grpc.add_EngineServicer_to_server(engine, self._server)
        if monitor is not None:
            resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, self._server)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0)


class Program:
    """The program behind a language runtime. `ended` is called with its error, or with an empty text."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=CHANNEL)
        self._stub = language_pb2_grpc.LanguageRuntimeStub(self._channel)

    def run(self, request: language_pb2.RunRequest, ended: Callable[[str, bool], None]) -> None:
        def wait() -> None:
            try:
                answer = self._stub.Run(request)
            except grpc.RpcError as error:
                ended(f"the program's host is gone: {error.details()}", False)
            else:
                ended(answer.error, answer.bail)

        threading.Thread(target=wait, daemon=True, name="program").start()

    def close(self) -> None:
        self._channel.close()
