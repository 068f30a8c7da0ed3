"""Leases of provider plugins: fresh gRPC servers for each engine command, gone when it ends or its process dies.

Requests of Pulumi's provider protocol carry no provider reference, so a server that several commands shared would mix
their regions, accounts and cancellations.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployer.sandbox.machines.tree import alive

if TYPE_CHECKING:
    import grpc

_LOG = logging.getLogger(__name__)
_CHECK_S = 1.0
_THREADS = 64
_MAX_MESSAGE = 400 * 1024 * 1024  # as Pulumi's own servers

# package -> a new provider (a servicer of Pulumi's ResourceProvider service)
Factories = Mapping[str, Callable[[], Any]]


@dataclass
class _Lease:
    id: str
    owner: int
    owner_started: str | None
    servers: dict[str, tuple[grpc.Server, int]]


class Plugins:
    """All leases of one daemon. Thread-safe."""

    def __init__(self, factories: Factories) -> None:
        self._factories = dict(factories)
        self._lock = threading.Condition()
        self._leases: dict[str, _Lease] = {}
        self._closed = False
        self._watching = False

    def lease(self, owner: int, owner_started: str | None) -> tuple[str, str]:
        """A new lease for the process `owner`: its id, and the value for PULUMI_DEBUG_PROVIDERS."""
        import grpc
        from pulumi.runtime.proto import provider_pb2_grpc

        servers: dict[str, tuple[grpc.Server, int]] = {}
        try:
            for package, factory in self._factories.items():
                server = grpc.server(
                    futures.ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix=package),
                    options=[
                        ("grpc.max_receive_message_length", _MAX_MESSAGE),
                        ("grpc.max_send_message_length", _MAX_MESSAGE),
                        ("grpc.so_reuseport", 0),
                    ],
                )
                provider_pb2_grpc.add_ResourceProviderServicer_to_server(factory(), server)
                servers[package] = (server, server.add_insecure_port("127.0.0.1:0"))
                server.start()
        except BaseException:
            _stop(servers)
            raise
        lease = _Lease(secrets.token_hex(8), owner, owner_started, servers)
        with self._lock:
            self._leases[lease.id] = lease
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="lease watch", daemon=True).start()
        return lease.id, ",".join(f"{package}:{port}" for package, (_, port) in servers.items())

    def release(self, id: str) -> bool:
        """Ends a lease. False when there is none of that id (any more)."""
        with self._lock:
            lease = self._leases.pop(id, None)
        if lease is None:
            return False
        _stop(lease.servers)
        return True

    def describe(self) -> list[dict[str, Any]]:
        with self._lock:
            return [
                {"id": lease.id, "owner": lease.owner, "ports": {p: port for p, (_, port) in lease.servers.items()}}
                for lease in self._leases.values()
            ]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            ids = list(self._leases)
            self._lock.notify_all()
        for id in ids:
            self.release(id)

    def _watch(self) -> None:
        # Runs only while there are leases: an idle sandbox does nothing.
        while True:
            with self._lock:
                self._lock.wait(_CHECK_S)
                if self._closed or not self._leases:
                    self._watching = False
                    return
                dead = [lease.id for lease in self._leases.values() if not alive(lease.owner, lease.owner_started)]
            for id in dead:
                _LOG.info("lease %s: its owner is gone", id)
                self.release(id)


def _stop(servers: Mapping[str, tuple[grpc.Server, int]]) -> None:
    # At once: the engine has had its answers, or is dead.
    for done in [server.stop(0) for server, _ in servers.values()]:
        done.wait(5)
