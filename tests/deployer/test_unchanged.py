"""An engine is not asked again what is known: only where nothing that its answer depends on has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployer import plan_make
from deployer.engine import Preview
from deployer.ledger import Ledger
from deployer.part import Part
from deployer.plan_make import Planner
from deployer.unchanged import digest
from stacks.access import AwsAccess
from tests.deployer.decision_samples import member, step
from tests.stacks.stack_samples import sample

ACCESS = AwsAccess(region="eu-central-1", account_id="111122223333")
STATE = {"resources": [{"type": "pulumi:pulumi:Stack", "outputs": {"public_ip": "192.0.2.7"}}]}
ARGS = sample()
Change = Callable[[Part], None]


class Engine:
    """Says what it was told to, and counts how often it was asked."""

    def __init__(self, *steps: Any) -> None:
        self.steps, self.asked, self.made = steps, 0, STATE

    def preview(self, program: object, plan_name: str | None, refresh: bool) -> Preview:
        self.asked += 1
        return Preview(self.steps)


@pytest.fixture
def planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    monkeypatch.setattr(plan_make, "load_program", lambda _: None)
    monkeypatch.setattr(Part, "program", lambda _: None)
    return Planner(SimpleNamespace(ledger=Ledger(tmp_path / "ledger.db")))  # type: ignore[arg-type]  # all it needs


def part() -> Part:
    return Part(member("site-1", region="eu-central-1"), dict(STATE), ARGS, access=ACCESS)


def other_args(one: Part) -> None:
    one.args = replace(ARGS, ssh_ingress=("203.0.113.0/24",))


def other_access(one: Part) -> None:
    one.access = replace(ACCESS, account_id="444455556666")


def other_state(one: Part) -> None:
    one.state = {**STATE, "pending_operations": []}


def test_where_nothing_was_to_be_changed_the_engine_is_asked_once(planner: Planner) -> None:
    engine: Any = Engine()
    for _ in range(3):
        assert planner.preview(part(), engine) == Preview(())
    assert engine.asked == 1


def test_what_the_engine_has_just_made_is_known(planner: Planner) -> None:
    engine: Any = Engine()
    made = part()
    made.state, made.made = None, True
    planner.keep(made, engine)
    planner.preview(part(), engine)
    assert engine.asked == 0


@pytest.mark.parametrize("change", [other_args, other_access, other_state])
def test_another_argument_identity_or_checkpoint_is_asked_about(planner: Planner, change: Change) -> None:
    engine: Any = Engine()
    planner.preview(part(), engine)
    changed = part()
    change(changed)
    planner.preview(changed, engine)
    assert engine.asked == 2
    planner.preview(part(), engine)  # and what was there before is not known any more
    assert engine.asked == 3


def test_who_wants_todays_image_asks_for_it(planner: Planner) -> None:
    engine: Any = Engine()
    for _ in range(2):
        wants = part()
        wants.args = replace(ARGS, reimage=True)
        planner.preview(wants, engine)
    assert engine.asked == 2


def test_another_program_is_asked_about(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest("aws", ARGS, ACCESS, STATE)
    monkeypatch.setattr("deployer.unchanged._packages", lambda _: "pulumi-aws 99")
    assert digest("aws", ARGS, ACCESS, STATE) != before


def test_a_look_at_the_cloud_and_what_is_still_to_be_done_are_always_asked_about(planner: Planner) -> None:
    engine: Any = Engine(step("update"))
    for _ in range(2):
        assert planner.preview(part(), engine).steps == engine.steps
    assert engine.asked == 2
    engine.steps = ()
    planner.preview(part(), engine)
    looking = part()
    looking.refresh = True
    engine.steps = (step("update"),)  # somebody has changed it in the cloud
    assert planner.preview(looking, engine).steps == engine.steps
    assert engine.asked == 4
