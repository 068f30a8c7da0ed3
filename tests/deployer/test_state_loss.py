"""No `up`, agreed to or not, replaces the volume on which a runtime's state lies by an empty one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.engine import Preview
from deployer.engine_events import Step
from deployer.errors import RefusedError
from deployer.ledger import Ledger
from deployer.part import Part
from deployer.plan import ParticipantPlan, Plan
from deployer.plan_make import Planner
from deployer.session import carry_out
from deployer.state_loss import check_state
from tests.deployer.decision_samples import member, step

VOLUME, DISK = "aws:ebs/volume:Volume", "azure-native:compute:Disk"
BY_ZONE = step("replace", "site-1-state", VOLUME, "availabilityZone")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def part(*steps: Step, region: str = "eu-central-1") -> Part:
    stands = {"type": "aws:ec2/vpc:Vpc", "custom": True, "outputs": {"region": "eu-central-1"}}
    return Part(member("site-1", region=region), {"resources": [stands]}, preview=Preview(steps))


def up(ledger: Ledger, one: Part) -> None:
    """`fedspan up --yes` from the plan on; ends where something would be made."""
    steps = one.preview.steps if one.preview else ()
    plan = Plan("digits", "sandbox", "s1", "d", "", (ParticipantPlan("site-1", "site", "aws", steps=steps),))
    session: Any = SimpleNamespace(
        preflight=lambda made: (made, ()),
        deployment=SimpleNamespace(ledger=ledger),
        up=SimpleNamespace(parts={"site-1": one}, apply=lambda _: pytest.fail("it was done")),
        crew=SimpleNamespace(),
        members=(),
        show=lambda _: None,
    )
    carry_out(session, plan, agreed=True)


@pytest.mark.parametrize(
    ("lost", "field"),
    [
        (BY_ZONE, "zone"),
        (step("replace", "site-1-state", VOLUME, "kmsKeyId"), "kms_key"),
        (step("replace", "site-1-state", DISK, "zones[0]"), "zone"),
        (step("delete", "site-1-state", DISK), "zone or kms_key"),
    ],
)
def test_another_zone_or_key_of_a_machine_that_stood_is_refused(ledger: Ledger, lost: Step, field: str) -> None:
    ledger.record("site-1", "registered", target="aws")
    ledger.record("site-1", "stopped")  # also of one that is off, or has ended by itself
    with pytest.raises(RefusedError, match="its volume holds the runtime's state") as caught:
        up(ledger, part(step("replace"), lost))
    assert f"put {field} back as it was" in str(caught.value.next_step)
    assert "fedspan down site-1" in str(caught.value.next_step)


def test_a_plan_says_that_up_refuses_it(ledger: Ledger) -> None:
    planner = Planner(SimpleNamespace(ledger=ledger))  # type: ignore[arg-type]  # all it needs
    assert planner._note(part(BY_ZONE)) == ""
    ledger.record("site-1", "started", target="aws")
    assert "volume with the runtime's state (zone changed): fedspan up refuses" in planner._note(part(BY_ZONE))
    assert "moves from aws eu-central-1" in planner._note(part(BY_ZONE, region="eu-west-1"))


@pytest.mark.parametrize(
    ("phases", "one"),
    [
        (("address", "failed"), part(BY_ZONE)),  # never stood: the volume holds nothing
        (("started", "down", "allocating"), part(BY_ZONE)),
        (("started",), part(step("replace"), step("replace", "site-1-vm-state", VOLUME))),
        (("started",), part(step("create", "site-1-state", VOLUME))),  # it is gone already
        (("started",), part(BY_ZONE, region="eu-west-1")),  # a move has its own words and its own question
    ],
)
def test_whatever_loses_no_state_is_let_through(ledger: Ledger, phases: tuple[str, ...], one: Part) -> None:
    for phase in phases:
        ledger.record("site-1", phase, target="aws")
    check_state(one, ledger.events("site-1"))
