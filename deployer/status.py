"""Who is deployed, running and registered: from the ledger, and from the server by a short SSH visit.

Imports no engine, no provider, no gRPC: `status` must answer at once, also where only the base is installed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deployer.errors import FedspanError
from deployer.expiry import end_told, expiry_of
from deployer.idle import idle_of, turned_itself_off
from deployer.ledger import NOTHING_THERE, STOPPED, Event, Ledger, Row
from deployer.reach import reach_of
from deployer.settings import setting
from deployer.spent import billed_until, seconds_on

if TYPE_CHECKING:
    from deployer.drift import Drift
    from deployer.look import CloudView

# phases of an `up` that runs, or was interrupted: without a machine to ask, and with one
NO_MACHINE = frozenset({"allocating", "address"})
UNFINISHED = NO_MACHINE | {"machine", "pushed"}


@dataclass(frozen=True)
class Line:
    """One participant's status. `runtime` is what the server (or the machine) says of it, `machine` what its cloud.

    `gpus`: `1 of 2 free`. `machine` and `drift` are known only when the clouds were asked. `end_told`: the machine
    itself knows when it `expires`. `bill_ends`: when it ends itself, where its cloud then bills it no more.
    `idle_stop`: seconds without a job after which the machine turns itself off. `idled`: it did.
    """

    name: str
    role: str
    target: str
    place: str
    size: str
    address: str
    phase: str
    runtime: str
    deployed_by: str
    since: float
    usd_hour: float | None
    detail: str = ""
    version: str = ""
    last_seen: float | None = None
    jobs: tuple[str, ...] = ()
    gpus: str = ""
    machine: str = ""
    drift: tuple[Drift, ...] = ()
    seconds_on: float = 0.0
    expires: float | None = None
    end_told: bool = False
    bill_ends: float | None = None
    idle_stop: int | None = None
    idled: bool = False

    @property
    def usd(self) -> float | None:
        """List price of the hours that the machine was on since it was deployed, USD."""
        return None if self.usd_hour is None or not self.since else self.usd_hour * self.seconds_on / 3600

    def document(self) -> dict[str, Any]:
        """As JSON."""
        drift = [one.document() for one in self.drift]
        return {
            **self.__dict__,
            "since": _iso(self.since),
            "last_seen": _iso(self.last_seen),
            "expires": _iso(self.expires),
            "bill_ends": _iso(self.bill_ends),
            "drift": drift,
            "usd": self.usd,
        }


@dataclass(frozen=True)
class Status:
    """Everybody's status, what the server says, and why it says nothing if it does not."""

    federation: str
    realm: str
    lines: tuple[Line, ...]
    server: Mapping[str, Any] | None
    trouble: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "federation": self.federation,
            "realm": self.realm,
            "participants": [line.document() for line in self.lines],
            "server": dict(self.server) if self.server else None,
            "trouble": self.trouble or None,
        }


def ago(seconds: float) -> str:
    """`3 s`, `5 min`, `2 h`, `4 d`. Pure."""
    for size, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {word}"
    return f"{max(0.0, seconds):.0f} s"


def _iso(seconds: float | None) -> str | None:
    """ISO 8601 in UTC; None for never."""
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def in_words(site: Mapping[str, Any] | None, now: float) -> str:
    """What the server says of a site: `registered`, `lost 5 min ago`, or nothing. Pure."""
    if site is None:
        return "not seen yet"
    if site.get("registered"):
        return "registered"
    seen = site.get("last_seen")
    when = seconds_of(seen)
    return f"lost {ago(now - when)} ago" if when else "not registered"


def seconds_of(text: Any) -> float | None:
    """A time of the runtime's (ISO 8601, or seconds) as seconds since the epoch; None for none. Pure."""
    if isinstance(text, (int, float)):
        return float(text)
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def peer_host(peer: str) -> str:
    """The address in what gRPC calls a peer: `ipv4:52.1.2.3:50880`, `ipv6:%5B::1%5D:50880`. Pure."""
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer


def visit(row: Row, ssh_dir: Path) -> tuple[dict[str, Any] | None, str]:
    """What the runtime on a machine says of itself, or why it says nothing. Opens no door: that takes credentials."""
    if row.outputs.get("ssh_access") == "during-operations":
        return None, "its SSH is closed between operations (ssh_access); fedspan site list asks the server itself"
    from deployer.glance import glance

    try:
        with reach_of(row, ssh_dir).connect(setting("STATUS_DEADLINE"), grace=False) as machine:
            answer = glance(machine)
    except FedspanError as error:
        return None, f"{error.what}: {error.why}" if error.why else error.what
    return answer, "" if answer else "the runtime does not run"


def collect(ledger: Ledger, ssh_dir: Path, federation: str, expected: Iterable[tuple[str, str, str]] = ()) -> Status:
    """The status of everybody that the ledger or the spec (`expected`: name, role, target) knows."""
    rows = {row.name: row for row in ledger.participants()}
    for name, role, target in expected:
        rows.setdefault(name, Row(name, role, target, "planned"))
    server = rows.get("server")
    answer, trouble = (None, "")
    if server is not None and server.phase not in NOTHING_THERE and server.target != "kit":
        if server.phase not in NO_MACHINE | {"stopped"}:
            answer, trouble = visit(server, ssh_dir)
        if answer is None and server.phase in UNFINISHED:
            said = f" ({trouble})" if trouble else ""
            trouble = f"its up has not come to its end{said}\n  next: fedspan up goes on from there"
    sites: Mapping[str, Any] = (answer or {}).get("sites") or {}
    silent = [row for row in rows.values() if _needs_visit(row, answer, sites)]
    with ThreadPoolExecutor(max(1, len(silent))) as pool:
        visits = dict(pool.map(lambda row: (row.name, visit(row, ssh_dir)), silent))
    lines = [_line(row, answer, sites, visits.get(row.name), ledger.notes(row.name)) for row in rows.values()]
    events, now = ledger.events(), time.time()
    done = tuple(_with_times(line, row, ledger, events, now) for line, row in zip(lines, rows.values(), strict=True))
    return Status(federation, (ledger.realm() or ("none", ""))[0], done, answer, trouble)


def _with_times(line: Line, row: Row, ledger: Ledger, events: Sequence[Event], now: float) -> Line:
    expires, told = expiry_of(ledger, line.name), end_told(ledger, line.name)
    end = billed_until(row, expires, told=told)
    on = seconds_on(events, line.name, line.since, now, end) if line.since else 0.0
    return replace(
        line,
        seconds_on=on,
        expires=expires,
        end_told=told,
        bill_ends=end,
        idle_stop=idle_of(ledger, line.name),
        idled=turned_itself_off(row),
    )


def _needs_visit(row: Row, answer: Mapping[str, Any] | None, sites: Mapping[str, Any]) -> bool:
    """A site that is not registered though it was started: its own machine knows why."""
    if row.role != "site" or row.target == "kit" or row.phase not in ("started", "registered"):
        return False
    return not (sites.get(row.name) or {}).get("registered")


def _line(
    row: Row,
    answer: Mapping[str, Any] | None,
    sites: Mapping[str, Any],
    visited: tuple[dict[str, Any] | None, str] | None,
    notes: Sequence[str] = (),
) -> Line:
    site = sites.get(row.name)
    if row.role == "server":
        silent = row.phase in NOTHING_THERE | NO_MACHINE | {"stopped"}
        runtime = "running" if answer else "" if silent else "does not answer"
    else:
        silent = row.phase in ("planned", "down", "stopped")
        runtime = in_words(site, time.time()) if answer else "" if silent else "unknown"
    detail = row.detail if row.phase == "failed" else ""
    if visited is not None:
        said, trouble = visited
        error = (said or {}).get("error") or {}
        detail = trouble or ": ".join(str(word) for word in (error.get("what"), error.get("why")) if word)
    detail = "; ".join([detail, *notes] if detail else notes)
    labels = (site or {}).get("labels") or {}
    told = (answer or {}) if row.role == "server" else (site or {})
    figures = ((answer or {}).get("resources") or {}).get(row.name) or {}
    seen = bool(site and (site.get("registered") or site.get("last_seen")))
    place = row.region or labels.get("region") or (row.address if row.target == "host" else "") or ""
    return Line(
        name=row.name,
        role=row.role,
        target=row.target if row.target != "kit" else labels.get("target") or "kit",
        place=place,
        size=row.size or "",
        address=row.address or peer_host(str((site or {}).get("address") or "")),
        phase="registered" if row.phase == "awaited" and seen else row.phase,
        runtime=runtime,
        deployed_by=labels.get("deployed-by") or ("lead" if row.phase not in NOTHING_THERE else ""),
        since=row.since if row.phase not in NOTHING_THERE else 0.0,
        usd_hour=row.usd_hour if row.phase not in NOTHING_THERE else None,
        detail=detail,
        version=str(told.get("version") or ""),
        last_seen=seconds_of(told.get("last_seen")) or (time.time() if row.role == "server" and answer else None),
        jobs=jobs_of(row, answer, figures),
        gpus=gpus_in_words(figures),
    )


def jobs_of(row: Row, answer: Mapping[str, Any] | None, figures: Mapping[str, Any]) -> tuple[str, ...]:
    """The jobs that run on a participant now. Pure."""
    if row.role == "server":
        return tuple(str(job["id"]) for job in (answer or {}).get("jobs") or () if job.get("state") == "RUNNING")
    return tuple(str(job) for job in figures.get("jobs") or ())


def gpus_in_words(figures: Mapping[str, Any]) -> str:
    """`1 of 2 free`; empty where a site has none or did not tell. Pure."""
    has, free = figures.get("gpus") or (), (figures.get("free") or {}).get("gpus") or ()
    return f"{len(free)} of {len(has)} free" if has else ""


def with_clouds(found: Status, views: Mapping[str, CloudView], off: Collection[str] = ()) -> Status:
    """The status with what the clouds say of the machines; `off` were found to have turned themselves off. Pure."""
    lines = []
    for line in found.lines:
        view = views.get(line.name)
        if view is None:
            lines.append(line)
            continue
        if line.name in off:
            line = replace(line, phase=STOPPED, idled=True)
        detail = "; ".join(text for text in (line.detail, view.trouble) if text)
        lines.append(replace(line, machine=view.machine or "unknown", drift=view.drift, detail=detail))
    return replace(found, lines=tuple(lines))
