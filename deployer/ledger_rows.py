"""What stands in a ledger: its schema, and a participant's row and an event as Python has them."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 2

SCHEMA = """
create table meta (key text primary key, value text not null);
create table participant (
    name text primary key, role text not null, target text not null, phase text not null, detail text not null,
    region text, zone text, size text, address text, ssh_port integer, ssh_user text,
    outputs text not null, usd_hour real, since real not null, changed real not null
);
create table event (
    id integer primary key, at real not null, participant text not null, phase text not null, resource text not null,
    detail text not null, who text not null default '', verb text not null default ''
);
create table allowed (site text not null, cidr text not null, at real not null, primary key (site, cidr));
"""

# from each older schema to the next one
MIGRATIONS = {
    1: (
        "alter table event add column who text not null default ''",
        "alter table event add column verb text not null default ''",
    )
}

# phases of a participant, in the order of a good deployment; "stopped", "failed" and "down" can follow
PHASES = (
    "planned",
    "allocating",
    "address",
    "machine",
    "pushed",
    "started",
    "registered",
    "awaited",
    "stopped",
    "failed",
    "down",
)

STOPPED = "stopped"
# phases in which a cloud holds nothing of the participant
NOTHING_THERE = frozenset({"planned", "awaited", "down"})


@dataclass(frozen=True)
class Row:
    """One participant as the ledger knows it. Times are seconds since the epoch; `usd_hour` is the list price."""

    name: str
    role: str
    target: str
    phase: str
    detail: str = ""
    region: str | None = None
    zone: str | None = None
    size: str | None = None
    address: str | None = None
    ssh_port: int | None = None
    ssh_user: str | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    usd_hour: float | None = None
    since: float = 0.0
    changed: float = 0.0

    @property
    def cloud(self) -> str | None:
        """`aws` or `azure` where the participant has a stack, else None."""
        return self.target if self.target in ("aws", "azure") else None


@dataclass(frozen=True)
class Event:
    """One step: when, whose, which phase, which resource, what happened; who typed which command for it.

    A whole command has no participant; its phase is `begun`, `done` or `failed`.
    """

    at: float
    participant: str
    phase: str
    resource: str
    detail: str
    who: str = ""
    verb: str = ""


def user() -> str:
    """Whose process this is: the user's name, or number where a container's user has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def actor() -> str:
    """Who types: `user@machine`."""
    return f"{user()}@{socket.gethostname()}"


def row_of(row: sqlite3.Row) -> Row:
    """A participant from its row."""
    fields = dict(row)
    fields["outputs"] = json.loads(fields["outputs"])
    return Row(**fields)


def event_of(row: sqlite3.Row) -> Event:
    """An event from its row."""
    fields = dict(row)
    del fields["id"]
    return Event(**fields)
