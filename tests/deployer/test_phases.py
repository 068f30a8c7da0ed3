"""What the ledger says of a participant when something failed halfway, and what no command does behind its back."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from deployer import down as downs
from deployer import recover, session_power
from deployer.crew import Crew
from deployer.down import Down, deployed, member_of
from deployer.engine_events import Step
from deployer.errors import CloudError, RefusedError, UnreachableError
from deployer.interrupts import Interrupts
from deployer.ledger import Ledger
from deployer.member import Member
from deployer.power import OFF
from deployer.prepare import check_target
from deployer.session_extend import is_end
from deployer.settle.model import Found
from deployer.spent import seconds_on

VM = "aws:ec2/instance:Instance"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "ledger.db")
    made.record(
        "site-1", "registered", role="site", target="aws", region="eu-central-1", address="52.1.2.3", ssh_user="ubuntu"
    )
    return made


@pytest.fixture
def crew(ledger: Ledger, tmp_path: Path) -> Crew:
    """Of a deployment whose clouds and screen are not real."""
    deployment: Any = MagicMock(ledger=ledger, state_dir=tmp_path, members={"site-1": None}, federation="digits")
    return Crew(deployment, MagicMock(), Interrupts(), MagicMock(), "down")


# --- another target


def site(target: str) -> Member:
    return Member("site-1", "site", target, Path("kit"), region="eu-central-1", host="192.0.2.1", user="ana")


@pytest.mark.parametrize(("was", "now"), [("aws", "host"), ("azure", "kit"), ("host", "aws"), ("host", "kit")])
def test_what_is_deployed_is_not_left_behind_for_another_target(ledger: Ledger, was: str, now: str) -> None:
    ledger.record("site-1", "failed", target=was)
    with pytest.raises(RefusedError, match=f"deployed on {was}, and federation.yml says {now}") as caught:
        check_target(ledger, site(now))
    assert caught.value.next_step == "fedspan down site-1 takes that down; then fedspan up"
    ledger.record("site-1", "down")
    check_target(ledger, site(now))


@pytest.mark.parametrize(("was", "now"), [("aws", "azure"), ("aws", "aws"), ("kit", "aws"), ("kit", "host")])
def test_clouds_are_moved_between_and_a_kit_is_taken_over(ledger: Ledger, was: str, now: str) -> None:
    ledger.record("site-1", "registered", target=was)
    check_target(ledger, site(now))


# --- down


class Deleting:
    """A cloud that lists what is deleted for a while."""

    def __init__(self, looks: int) -> None:
        self.looks, self.deleted = looks, 0

    def find(self, whose: object) -> list[Found]:
        self.looks -= 1
        return (
            [Found("aws", "aws:ebs/volume:Volume", "vol-1", "site-1-state", "eu-central-1")] if self.looks >= 0 else []
        )

    def delete(self, found: object, on_step: object) -> None:
        self.deleted += 1


def down(crew: Crew, cloud: Deleting, monkeypatch: pytest.MonkeyPatch) -> Down:
    monkeypatch.setenv("FEDSPAN_GONE_DEADLINE", "0.3")
    monkeypatch.setenv("FEDSPAN_GONE_INTERVAL", "0.02")
    monkeypatch.setattr(downs, "free_stack", lambda *_: [])
    monkeypatch.setattr(downs, "settle_stack", lambda *_: ([], False, None))
    crew.deployment.realm.world.return_value = cloud  # type: ignore[attr-defined]
    engine: Any = SimpleNamespace(state=lambda: None, destroy=lambda refresh: [])
    crew._engines["site-1"] = engine
    return Down(crew, deployed(crew.deployment.ledger, []), Path("kits"), Path("results"))


def test_what_a_cloud_is_still_deleting_is_waited_for(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Deleting(looks=4)
    down(crew, cloud, monkeypatch).destroy()
    assert cloud.deleted == 1
    assert deployed(crew.deployment.ledger, []) == []


def test_a_participant_of_which_something_is_left_is_not_down(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CloudError, match="1 resources are left") as caught:
        down(crew, Deleting(looks=10**9), monkeypatch).destroy()
    assert "site-1-state" in (caught.value.why or "")
    (row,) = deployed(crew.deployment.ledger, [])  # so the next `down` tries again
    assert (row.name, row.phase) == ("site-1", "failed")
    crew.deployment.keys.destroy.assert_not_called()  # type: ignore[attr-defined]


class Held:
    """A cloud that holds a state volume, and deletes it when it is asked the second time."""

    def __init__(self) -> None:
        self.asked = 0
        made = datetime.now(timezone.utc) - timedelta(days=3)
        self.holds = [Found("aws", "aws:ebs/volume:Volume", "vol-1", "site-1-state", "eu-central-1", created=made)]

    def find(self, whose: object) -> list[Found]:
        return self.holds

    def delete(self, found: object, on_step: object) -> None:
        self.asked += 1
        if self.asked == 1:
            raise CloudError("the cloud does not answer", participant="site-1")
        self.holds = []


def test_a_down_that_was_cut_off_in_its_last_look_can_be_typed_again(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stack is gone by then, and its volume is older than any interrupted operation."""
    settles, cloud = downs.settle_stack, Held()
    work = down(crew, cast(Any, cloud), monkeypatch)
    monkeypatch.setattr(downs, "settle_stack", settles)
    monkeypatch.setattr(recover, "free_stack", lambda *_: [])
    with pytest.raises(CloudError, match="the cloud does not answer"):
        work.destroy()
    Down(crew, deployed(crew.deployment.ledger, []), Path("kits"), Path("results")).destroy()
    assert cloud.holds == deployed(crew.deployment.ledger, []) == []


@pytest.mark.parametrize("forget", [False, True])
def test_a_host_that_is_gone_is_given_up_only_when_that_is_said(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, forget: bool
) -> None:
    def unreachable(*_: object) -> None:
        raise UnreachableError("no answer", participant="site-1")

    ledger = crew.deployment.ledger
    ledger.record("site-1", "registered", target="host")
    monkeypatch.setattr(downs, "log_in", unreachable)
    work = Down(crew, deployed(ledger, []), Path("kits"), Path("results"), forget_hosts=forget)
    if forget:
        work.destroy()
    else:
        with pytest.raises(UnreachableError, match="if it is gone for good: fedspan down site-1 --forget-hosts"):
            work.destroy()
    assert bool(deployed(ledger, [])) is not forget


# --- stop and start


class Switch:
    """A machine's switch that works, or does not."""

    def __init__(self, works: bool) -> None:
        self.works = works

    def look(self, vm_id: str) -> str:
        return next(iter(OFF))

    def start(self, vm_id: str) -> None:
        if not self.works:
            raise CloudError("no capacity", participant="site-1")


@pytest.mark.parametrize(("works", "phase"), [(True, "failed"), (False, "stopped")])
def test_a_machine_that_was_turned_on_and_can_not_be_reached_is_not_said_to_be_off(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, works: bool, phase: str
) -> None:
    def unreachable(*_: object) -> None:
        raise UnreachableError("no answer", participant="site-1")

    ledger = crew.deployment.ledger
    ledger.record("site-1", "stopped")
    monkeypatch.setattr(session_power, "switch", lambda *_: (Switch(works), "i-1"))
    monkeypatch.setattr(session_power, "log_in", unreachable)
    row = ledger.participant("site-1")
    assert row is not None
    with pytest.raises((UnreachableError, CloudError)):
        session_power._guarded(crew, member_of(row, Path("kits")), row, session_power._start)
    after = ledger.participant("site-1")
    assert after is not None
    assert after.phase == phase
    now = time.time() + 3600
    spent = seconds_on(ledger.events(), "site-1", row.since, now)
    assert spent == pytest.approx(3600 if works else 0, abs=60)  # it bills, or it does not


def test_a_machine_that_was_just_turned_on_is_not_idle_since_it_was_deployed(ledger: Ledger) -> None:
    row = ledger.participant("site-1")
    assert row is not None
    assert session_power.on_since(ledger, row) == row.since
    ledger.event("site-1", "machine", detail="turned on", at=row.since + 1000)
    ledger.event("site-1", "started", at=row.since + 1010)
    assert session_power.on_since(ledger, row) == row.since + 1000


# --- extend


@pytest.mark.parametrize(
    ("kind", "action", "reasons", "may"),
    [
        (VM, "update", ("tags", "tagsAll"), True),
        (VM, "update", ("tags.expires", 'tagsAll["expires"]', "instanceInitiatedShutdownBehavior"), True),
        ("azure-native:compute:VirtualMachine", "update", ("tags",), True),
        ("azure-native:devtestlab:GlobalSchedule", "delete", (), True),
        (VM, "update", ("instanceType", "tags"), False),
        ("azure-native:compute:VirtualMachine", "update", ("hardwareProfile.vmSize",), False),
        (VM, "replace", ("tags",), False),
    ],
)
def test_extend_moves_an_end_and_nothing_else(kind: str, action: Any, reasons: tuple[str, ...], may: bool) -> None:
    assert is_end(Step("urn", kind, "site-1-vm", action, reasons)) is may
