"""The baseline: bare gRPC with mutual TLS, each end a process of its own, nothing on disk.

    throughput(...)   MB/s of two clients at once, 1 MiB messages: the better of grpc's synchronous and aio servers
    calls(...)        milliseconds of small unary calls, by themselves or while others move bulk

Channels and servers have the runtime's own settings (fl_runtime.wire.tls), so that what differs is the runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from fl_runtime.kit import Endpoint, read_kit
from fl_runtime.wire import tls

import grpc  # isort: skip - after wire.tls, which sets what gRPC reads at import

CHUNK = bytes(1024 * 1024)
SMALL = bytes(1024)
KINDS = ("sync", "aio")
_AGAIN_S = 0.02  # between small calls


# --- the processes


def _serve(kit_path: str, port: str, kind: str) -> None:
    kit = read_kit(Path(kit_path))
    credentials = tls.server_credentials(kit)
    address = f"127.0.0.1:{port}"
    if kind == "aio":
        asyncio.run(_serve_aio(address, credentials))
        return

    def down(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in range(int(request)):
            yield CHUNK

    def up(frames: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        for _ in frames:
            pass
        return b""

    def small(request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    server = tls.server(kit, 64)
    server.add_generic_rpc_handlers((_handlers(down, up, small),))
    server.add_secure_port(address, credentials)
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(0)


async def _serve_aio(address: str, credentials: grpc.ServerCredentials) -> None:
    async def down(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(int(request)):
            yield CHUNK

    async def up(frames: AsyncIterator[bytes], context: Any) -> bytes:
        async for _ in frames:
            pass
        return b""

    async def small(request: bytes, context: Any) -> bytes:
        return request

    server = grpc.aio.server(options=tls.SERVER)
    server.add_generic_rpc_handlers((_handlers(down, up, small),))
    server.add_secure_port(address, credentials)
    await server.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


def _handlers(down: Any, up: Any, small: Any) -> Any:
    return grpc.method_handlers_generic_handler(
        "raw",
        {
            "down": grpc.unary_stream_rpc_method_handler(down),
            "up": grpc.stream_unary_rpc_method_handler(up),
            "small": grpc.unary_unary_rpc_method_handler(small),
        },
    )


def _move(kit_path: str, port: str, kind: str, count: str) -> None:
    """Download and upload `count` chunks, once for warming up (a few of them) and once when told to begin."""
    kit, endpoint = read_kit(Path(kit_path)), Endpoint("127.0.0.1", int(port))
    if kind == "aio":
        asyncio.run(_move_aio(kit, endpoint, int(count)))
        return
    with tls.channel(kit, endpoint, bulk=True) as channel:

        def both(number: int) -> None:
            for _ in channel.unary_stream("/raw/down")(str(number).encode()):
                pass
            channel.stream_unary("/raw/up")(CHUNK for _ in range(number))

        both(8)
        _told_to_begin()
        begun = time.monotonic()
        both(int(count))
        print(json.dumps([begun, time.monotonic()]), flush=True)


async def _move_aio(kit: Any, endpoint: Endpoint, count: int) -> None:
    credentials = grpc.ssl_channel_credentials(kit.ca, kit.key, kit.certificate)
    options = [*tls.CHANNEL, *tls.BULK_CHANNEL, ("grpc.ssl_target_name_override", kit.server_name)]
    async with grpc.aio.secure_channel(f"dns:///{endpoint.address}", credentials, options=options) as channel:

        async def chunks(number: int) -> AsyncIterator[bytes]:
            for _ in range(number):
                yield CHUNK

        async def both(number: int) -> None:
            async for _ in channel.unary_stream("/raw/down")(str(number).encode()):
                pass
            await channel.stream_unary("/raw/up")(chunks(number))

        await both(8)
        _told_to_begin()
        begun = time.monotonic()
        await both(count)
        print(json.dumps([begun, time.monotonic()]), flush=True)


def _told_to_begin() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def _ask(kit_path: str, port: str, count: str) -> None:
    """Small calls one after the other; the milliseconds of each."""
    kit, endpoint = read_kit(Path(kit_path)), Endpoint("127.0.0.1", int(port))
    with tls.channel(kit, endpoint) as channel:
        small = channel.unary_unary("/raw/small")
        small(SMALL)
        _told_to_begin()
        found = []
        for _ in range(int(count)):
            begun = time.monotonic()
            small(SMALL)
            found.append((time.monotonic() - begun) * 1000)
            time.sleep(_AGAIN_S)
        print(json.dumps(found), flush=True)


# --- what the benchmarks call


def _start(*argv: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), *map(str, argv)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of the baseline ended with code {process.wait()}")
    return line


def _begin(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        _line(process)  # ready
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


@contextlib.contextmanager
def server(kit: Path, kind: str = "sync") -> Iterator[tuple[int, int]]:
    """A bare server: its port, its process id."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    process = _start("serve", kit, port, kind)
    try:
        _line(process)
        yield port, process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


@contextlib.contextmanager
def _clients(*commands: tuple[object, ...]) -> Iterator[list[subprocess.Popen[str]]]:
    processes = [_start(*command) for command in commands]
    try:
        yield processes
    finally:
        for process in processes:
            _end(process)


def throughput(
    server_kit: Path,
    client_kit: Path,
    mib: int = 1024,
    clients: int = 2,
    watch: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """MB/s by kind ("sync", "aio"): each client downloads `mib` MiB and uploads as much, all at once.

    `watch(pid)` is called in a thread of its own for each server.
    """
    found = {}
    for kind in KINDS:
        with (
            server(server_kit, kind) as (port, pid),
            _clients(*[("move", client_kit, port, kind, mib)] * clients) as running,
        ):
            if watch is not None:
                threading.Thread(target=watch, args=(pid,), daemon=True).start()
            _begin(running)
            times = [json.loads(_line(process)) for process in running]
        seconds = max(end for _, end in times) - min(begun for begun, _ in times)
        found[kind] = 2 * clients * mib * len(CHUNK) / 1e6 / seconds
    return found


@contextlib.contextmanager
def askers(client_kit: Path, port: int, count: int) -> Iterator[None]:
    """So many clients that have each made a call."""
    with _clients(*[("ask", client_kit, port, 0)] * count) as running:
        for process in running:
            _line(process)  # ready
        yield


def calls(server_kit: Path, client_kit: Path, count: int = 200, bulk_clients: int = 0, mib: int = 512) -> list[float]:
    """Milliseconds of small calls to a synchronous server, while so many clients move bulk."""
    with server(server_kit) as (port, _):
        movers: list[tuple[object, ...]] = [("move", client_kit, port, "sync", mib)] * bulk_clients
        with _clients(*movers, ("ask", client_kit, port, count)) as running:
            _begin(running)
            return [float(value) for value in json.loads(_line(running[-1]))]


if __name__ == "__main__":
    {"serve": _serve, "move": _move, "ask": _ask}[sys.argv[1]](*sys.argv[2:])
