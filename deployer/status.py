"""Who is deployed, running and registered: from the ledger, and from the server by a short SSH visit.

Imports no engine, no provider, no gRPC: `status` must answer at once, also where only the base is installed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from deployer.errors import FedspanError
from deployer.ledger import NOTHING_THERE, Ledger, Row
from deployer.reach import reach_of
from deployer.settings import setting

# phases of an `up` that runs, or was interrupted: without a machine to ask, and with one
NO_MACHINE = frozenset({"allocating", "address"})
UNFINISHED = NO_MACHINE | {"machine", "pushed"}


@dataclass(frozen=True)
class Line:
    """One participant's status. `runtime` is what the server (or the machine) says of it."""

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

    @property
    def usd(self) -> float | None:
        """List price of the machine since it was deployed, USD."""
        if self.usd_hour is None or not self.since:
            return None
        return self.usd_hour * (time.time() - self.since) / 3600

    def document(self) -> dict[str, Any]:
        """As JSON."""
        since = datetime.fromtimestamp(self.since, timezone.utc).isoformat(timespec="seconds") if self.since else None
        return {**self.__dict__, "since": since.replace("+00:00", "Z") if since else None, "usd": self.usd}


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


def in_words(site: Mapping[str, Any] | None, now: float) -> str:
    """What the server says of a site: `registered`, `lost 5 min ago`, or nothing. Pure."""
    if site is None:
        return "not seen yet"
    if site.get("registered"):
        return "registered"
    seen = site.get("last_seen")
    when = _time(seen)
    return f"lost {ago(now - when)} ago" if when else "not registered"


def _time(text: Any) -> float | None:
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
    """What the runtime on a machine says of itself, or why it says nothing."""
    from deployer.bootstrap import runtime_status
    from deployer.ssh import connect

    try:
        reach = reach_of(row, ssh_dir)
        with connect(
            reach.address,
            reach.port,
            reach.user,
            reach.key_path,
            reach.known_hosts,
            deadline_s=setting("STATUS_DEADLINE"),
            auth_grace_s=0,
            name=row.name,
        ) as machine:
            answer = runtime_status(machine)
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
        if server.phase not in NO_MACHINE:
            answer, trouble = visit(server, ssh_dir)
        if answer is None and server.phase in UNFINISHED:
            said = f" ({trouble})" if trouble else ""
            trouble = f"its up has not come to its end{said}\n  next: fedspan up goes on from there"
    sites: Mapping[str, Any] = (answer or {}).get("sites") or {}
    silent = [row for row in rows.values() if _needs_visit(row, answer, sites)]
    with ThreadPoolExecutor(max(1, len(silent))) as pool:
        visits = dict(pool.map(lambda row: (row.name, visit(row, ssh_dir)), silent))
    lines = tuple(_line(row, answer, sites, visits.get(row.name), ledger.notes(row.name)) for row in rows.values())
    return Status(federation, (ledger.realm() or ("none", ""))[0], lines, answer, trouble)


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
        runtime = "running" if answer else ("" if row.phase in NOTHING_THERE | NO_MACHINE else "does not answer")
    else:
        runtime = in_words(site, time.time()) if answer else ("" if row.phase in ("planned", "down") else "unknown")
    detail = row.detail if row.phase == "failed" else ""
    if visited is not None:
        said, trouble = visited
        error = (said or {}).get("error") or {}
        detail = trouble or ": ".join(str(word) for word in (error.get("what"), error.get("why")) if word)
    detail = "; ".join([detail, *notes] if detail else notes)
    labels = (site or {}).get("labels") or {}
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
    )
