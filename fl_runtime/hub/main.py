"""The hub: all parts put together, one process, one port."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_runtime import localsock, version
from fl_runtime.blobs import BlobStore
from fl_runtime.blobs.space import disk_quota
from fl_runtime.errors import NONSENSE, FlError, KitError, ProtocolError, StorageError
from fl_runtime.hub.attaching import serve_local
from fl_runtime.hub.board import Board
from fl_runtime.hub.bulk import BulkService
from fl_runtime.hub.changes import Changes
from fl_runtime.hub.desk import Desk
from fl_runtime.hub.jobs import Jobs
from fl_runtime.hub.logs import LogBook, ServerLogs
from fl_runtime.hub.orders import HubOrders
from fl_runtime.hub.reports import Reported
from fl_runtime.hub.service import Alive, HubService
from fl_runtime.hub.sessions import Session, Sessions
from fl_runtime.hub.state import QUEUED, RECEIVING
from fl_runtime.hub.store import open_store
from fl_runtime.hub.turnstile import Turnstile
from fl_runtime.hub.wires import Wires
from fl_runtime.kit import Kit
from fl_runtime.names import BULK_STREAMS, iso, now_ms
from fl_runtime.processes import give_back
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls
from fl_runtime.wire.identity import Gate
from fl_runtime.wire.revocations import RevocationBook, RevocationList

log = logging.getLogger("fedspan.hub")

_TICK_S = 0.5


class Hub(Changes):
    """Start with `start()`, end with `stop()`; everything durable lies in `state`."""

    def __init__(self, kit: Kit, state: Path, store: str | None = None) -> None:
        """`store`: URL of a PostgreSQL database; None = a SQLite file in `state`."""
        super().__init__()
        self.kit = kit
        self.state = state
        self.incarnation = secrets.token_hex(8)
        self.started = time.time()
        self.socket_path = state / "local.sock"
        self.store = open_store(state, store)
        self.blobs = BlobStore(state, self.store.db, lambda: disk_quota(kit))
        self.logs = LogBook(state / "logs")
        self.server_logs = ServerLogs(self.logs)
        self.reported = Reported(self)
        self.turnstile = Turnstile(bulk_streams(kit))
        self.revocations = RevocationBook(state, kit.path, kit.ca, kit.federation, self._revoked)
        sites = [row["name"] for row in self.store.participants() if row["role"] == "site"]
        self.gate = Gate(kit.federation, self.revocations.is_revoked, sites, self.turnstile.places)
        self.sessions = Sessions(self._connected, self._lost)
        self.jobs = Jobs(self)
        self.board = Board(self.store, self.blobs, self.sessions, self.turnstile.queued)
        self.wires = Wires(self)
        self.board.payload_for, self.board.answers.noted = self.wires.payload, self.wires.noted
        self.board.late.bases = self.wires.bases
        self.desk = Desk(self)
        self.orders = HubOrders(self)
        self.ordered: Callable[[int], None] = lambda code: None  # ends the process with this code
        self._stopping = threading.Event()
        self._server = tls.server(kit)
        self._server.add_generic_rpc_handlers(
            (rpc.hub_handlers(HubService(self)), rpc.blob_handlers(Alive(BulkService(self), self)))
        )
        self._local: localsock.Server | None = None

    def start(self) -> int:
        """Listen, and go on with what was running. Returns the port.

        Raises:
            FlError: the port is taken.
        """
        bind = os.environ.get("FEDSPAN_BIND") or "[::]"
        credentials = tls.server_credentials(self.kit)
        port = 0
        for address in (bind, "0.0.0.0") if bind == "[::]" else (bind,):  # noqa: S104 - the hub serves all interfaces; the stack's rules say who comes
            try:
                port = self._server.add_secure_port(f"{address}:{self.kit.port}", credentials)
            except RuntimeError:
                continue
            if port:
                break
        if not port:
            raise FlError(
                f"Port {self.kit.port} can't be opened on {bind}",
                participant=self.kit.name,
                why="another process has it, or the address is not this machine's",
                next_step=f"ss -ltnp | grep {self.kit.port}",
            )
        self._local = serve_local(self, self.socket_path)
        self._server.start()
        tls.check_shut_out(self.kit, "127.0.0.1" if bind == "[::]" else bind.strip("[]"), port)
        self.jobs.recover()
        threading.Thread(target=self._ticker, name="ticker", daemon=True).start()
        log.info("the server of %s listens on port %s", self.kit.federation, port)
        return port

    def stop(self) -> None:
        self._stopping.set()
        self.jobs.close()
        self.sessions.close()
        self._server.stop(1.0).wait(3)
        if self._local is not None:
            self._local.close()
        self.changed()
        self.server_logs.close()
        self.store.close()

    def _ticker(self) -> None:
        full, passed = False, 0
        while not self._stopping.wait(_TICK_S):
            try:
                self.revocations.look()
                self.gate.sweep()
                self.sessions.end_silent()
                self.board.tick()
                self.jobs.tick()
                full = False
                if self.turnstile.passed != passed:
                    passed = self.turnstile.passed
                    give_back()
            except StorageError as error:
                if not full:
                    log.error("decisions wait to be stored: %s", error)
                full = True
            except Exception:
                if not self._stopping.is_set():
                    log.exception("housekeeping failed")

    # --- participants

    def _revoked(self, found: RevocationList) -> None:
        """A newer list holds: what its serials have open ends now, and every site learns of it."""
        self.gate.cancel(found.serials)
        self.sessions.tell_all(revocations=pb.Revocations(document=found.document, signature=found.signature))

    def connected_sites(self) -> list[str]:
        return self.sessions.connected()

    def _connected(self, name: str) -> None:
        log.info("%s is registered", name)
        self.jobs.connected(name)
        self.changed()

    def _lost(self, name: str) -> None:
        if self._stopping.is_set():
            return
        log.warning("%s is lost", name)
        self.board.tick()
        self.changed()

    def on_message(self, session: Session, message: pb.ToHub) -> None:
        """One message of a site.

        Raises:
            ProtocolError: it holds what it should not.
        """
        try:
            self._on_message(session, message)
        except NONSENSE as error:
            raise ProtocolError("A message makes no sense", why=repr(error)) from error

    def _on_message(self, session: Session, message: pb.ToHub) -> None:
        name, kind = session.identity.name, message.WhichOneof("body")
        if kind == "heartbeat":
            session.send(heartbeat=pb.Heartbeat(clock_ms=now_ms()))
        elif kind == "job_answer":
            self.jobs.answer(name, message.job_answer)
            if message.job_answer.accepted and self.jobs.running(message.job_answer.job):
                self.board.push_open(message.job_answer.job, name)
        elif kind == "need_full":
            self.wires.in_full(name, message.need_full.task)
            self.board.push_open(message.need_full.job, name)
        elif kind == "reserved":
            self.jobs.starter.answered(name, message.reserved)
        elif kind == "task_result":
            self.board.answers.take(name, message.task_result)
            self.changed()
        elif kind == "log":
            self.reported.log(session, message.log)
        elif kind == "metric":
            self.reported.metric(session, message.metric)
        elif kind == "site_state":
            self.jobs.site_state(name, message.site_state)
        elif kind == "order_answer":
            self.orders.answered(name, message.order_answer)

    def bundle_arrived(self, job: str) -> None:
        """A submitted job is complete: queue it."""
        known = self.store.job(job)
        if known is not None and known.state == RECEIVING and self.store.set_job(job, QUEUED):
            log.info("%s: submitted by %s", job, known.submitter)
            self.jobs.schedule()
            self.changed()

    # --- what people see

    def site_table(self) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for row in self.store.participants():
            session = self.sessions.get(row["name"])
            heard = time.time() - (time.monotonic() - session.heard) if session else row["last_seen"]
            table[row["name"]] = {
                "registered": session is not None,
                "since": iso(session.since) if session else None,
                "last_seen": iso(heard),
                "version": row["version"],
                "protocol": session.major if session else None,
                "labels": row["labels"],
                "address": row["address"],
            }
        return table

    def status(self) -> dict[str, Any]:
        """For `python -m fl_runtime status`."""
        return {
            "role": "server",
            "name": self.kit.name,
            "federation": self.kit.federation,
            "version": version(),
            "pid": os.getpid(),
            "started": iso(self.started),
            "port": self.kit.port,
            "sites": self.site_table(),
            "resources": self.jobs.resources(),
            "jobs": [self.desk.brief(job) for job in self.store.jobs()],
        }


def bulk_streams(kit: Kit) -> int:
    """How many transfers of bulk may run at once: `bulk_streams` of the server's local/resources.yml, else 4.

    Raises:
        KitError: it is not a number from 1 to 64.
    """
    given = kit.resources().get("bulk_streams", BULK_STREAMS)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= 64:
        raise KitError(
            "The server's number of bulk streams makes no sense",
            participant=kit.name,
            why=f"local/resources.yml has `bulk_streams: {given}`",
            next_step="write a number from 1 to 64 there, or leave it out",
        )
    return given
