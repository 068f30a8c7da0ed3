"""Doors for SSH: one participant's is opened and closed once for all its logins, and waits for nobody else's."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from deployer import ssh_door
from deployer.ledger_rows import Row


@dataclass
class Cloud:
    """A door of each participant; `slow` lets nobody open theirs before it is told to."""

    told: list[str] = field(default_factory=list)
    slow: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    def door_of(self, row: Row) -> tuple[ssh_door.Door, str]:
        return _Door(self, row.name), "198.51.100.10/32"


@dataclass
class _Door:
    cloud: Cloud
    name: str

    def open(self, cidr: str, port: int) -> None:
        if self.name == "slow":
            self.cloud.asked.set()
            assert self.cloud.slow.wait(60)
        self.cloud.told.append(f"open {self.name} for {cidr}")

    def close(self) -> None:
        self.cloud.told.append(f"close {self.name}")


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    found = Cloud()
    monkeypatch.setattr(ssh_door, "door_of", found.door_of)
    return found


def row(name: str) -> Row:
    return Row(name=name, role="site", target="aws", phase="started")


def test_logins_of_one_command_share_a_door(cloud: Cloud) -> None:
    first, second = ssh_door.hold_open(row("site-1")), ssh_door.hold_open(row("site-1"))
    first()
    assert cloud.told == ["open site-1 for 198.51.100.10/32"]
    second()
    assert cloud.told[1:] == ["close site-1"]


def test_a_slow_cloud_holds_up_no_other_participants_door(cloud: Cloud) -> None:
    closes = []
    thread = threading.Thread(target=lambda: closes.append(ssh_door.hold_open(row("slow"))))
    thread.start()
    try:
        assert cloud.asked.wait(60)
        other = threading.Thread(target=lambda: ssh_door.hold_open(row("quick"))())
        other.start()
        other.join(60)
        assert cloud.told == ["open quick for 198.51.100.10/32", "close quick"]
    finally:
        cloud.slow.set()
        thread.join(60)
    closes[0]()
    assert cloud.told[2:] == ["open slow for 198.51.100.10/32", "close slow"]
