"""Another backend than the one that holds the stacks, or a state that was lost, makes nothing a second time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.backend import DEFAULT, check_backend, name_of
from deployer.engine_home import EngineHome
from deployer.errors import RealmError, RefusedError
from deployer.ledger import Ledger
from deployer.member import Member
from deployer.recover import settle_stack
from deployer.settle import Found

SITE = Member("site-1", "site", "aws", Path("kits/site-1"), region="eu-central-1")
OUTPUTS = {"vm_id": "i-1", "public_ip": "52.1.2.3"}
STACK = {"type": "pulumi:pulumi:Stack", "outputs": OUTPUTS}
MACHINE = {"type": "aws:ec2/instance:Instance", "custom": True, "id": "i-1", "urn": "urn::site-1-vm"}
STATE = {"resources": [STACK, MACHINE]}
VOLUME = Found("aws", "aws:ebs/volume:Volume", "vol-1", "site-1-state", "eu-central-1")
NETWORK = Found("aws", "aws:ec2/vpc:Vpc", "vpc-1", "site-1-vpc", "eu-central-1")


class Cloud:
    """What a cloud holds; what was asked where."""

    def __init__(self, *things: Found) -> None:
        self.things, self.regions = list(things), list[str]()

    def access(self, cloud: str, where: Any) -> Any:
        return None

    def world(self, cloud: str, where: Any, access: Any) -> Cloud:
        self.regions.append(where.region)
        return self

    def check(self, whose: Any) -> None:
        return

    def find(self, whose: Any) -> list[Found]:
        return [thing for thing in self.things if thing.region == self.regions[-1]]

    def delete(self, found: Any, on_step: Any) -> None:
        self.things = [thing for thing in self.things if thing not in found]


class Backends:
    """A crew whose engines find the stack in the backends that hold it."""

    def __init__(self, folder: Path, cloud: Cloud | None = None) -> None:
        self.states: dict[str, dict[str, Any]] = {}
        self.verb, self.told = "up", list[str]()
        self.screen = SimpleNamespace(phase=lambda *words: self.told.append(" ".join(words)), line=self.told.append)
        self.log = SimpleNamespace(file=lambda name: SimpleNamespace(write=lambda text: None), path=lambda name: "log")
        self.interrupts = SimpleNamespace(wait=lambda seconds: None)
        self.deployment = SimpleNamespace(
            ledger=Ledger(folder / "ledger.db"),
            home=EngineHome(folder / "stacks", "fedspan-digits"),
            federation="digits",
            realm=cloud or Cloud(),
        )

    def engine_named(self, name: str) -> Any:
        return SimpleNamespace(state=lambda: self.states.get(name_of(self.deployment.home)))

    def deploy(self, phase: str = "registered") -> None:
        check_backend(self)  # type: ignore[arg-type]
        self.states[name_of(self.deployment.home)] = STATE
        ledger = self.deployment.ledger
        ledger.record("site-1", phase, target="aws", region="eu-central-1", outputs=OUTPUTS)

    def check(self) -> None:
        check_backend(self)  # type: ignore[arg-type]

    def settle(self, member: Member = SITE, **how: Any) -> Any:
        return settle_stack(self, member.name, "aws", member, None, **how)  # type: ignore[arg-type]


def test_another_backend_than_the_one_that_holds_the_stacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = Backends(tmp_path)
    monkeypatch.setenv("FEDSPAN_BACKEND", "s3://ana:hidden@states?region=eu-central-1")
    crew.deploy()
    crew.check()
    monkeypatch.delenv("FEDSPAN_BACKEND")
    with pytest.raises(RealmError, match="lie in another backend") as caught:
        crew.check()
    assert "FEDSPAN_BACKEND=s3://states?region=eu-central-1 fedspan up" in str(caught.value)
    assert "FEDSPAN_BACKEND is not set" in str(caught.value)
    monkeypatch.setenv("FEDSPAN_BACKEND", "gs://other")
    crew.states["gs://other"] = {"resources": [{**STACK, "outputs": {**OUTPUTS, "vm_id": "i-0"}}, MACHINE]}
    with pytest.raises(RealmError):  # an older copy, with another machine
        crew.check()
    assert "hidden" not in str(crew.deployment.ledger.meta("backend"))


def test_a_backend_that_was_moved_is_used_once_it_holds_the_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from the copy that was left behind no more."""
    crew = Backends(tmp_path)
    crew.deploy()
    monkeypatch.setenv("FEDSPAN_BACKEND", "s3://states")
    with pytest.raises(RealmError, match="unset FEDSPAN_BACKEND; fedspan up"):
        crew.check()
    crew.states["s3://states"] = STATE
    crew.check()
    now = datetime.now(timezone.utc)
    crew.deployment.ledger.event("site-1", "update", "Instance site-1-vm")
    crew.states["s3://states"] = {**STATE, "manifest": {"time": now.isoformat()}}
    crew.states[DEFAULT] = {**STATE, "manifest": {"time": (now - timedelta(minutes=1)).isoformat()}}
    crew.check()
    monkeypatch.delenv("FEDSPAN_BACKEND")
    with pytest.raises(RealmError, match="FEDSPAN_BACKEND=s3://states fedspan up"):
        crew.check()


def test_any_backend_will_do_where_nothing_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Backends(tmp_path)
    crew.deploy("down")
    monkeypatch.setenv("FEDSPAN_BACKEND", "s3://states")
    crew.check()


def test_a_workspace_may_be_moved_with_its_own_backend(tmp_path: Path) -> None:
    crew = Backends(tmp_path)
    crew.deploy()
    crew.deployment.home = EngineHome(tmp_path / "renamed", "fedspan-digits")
    crew.states.clear()  # it is not even asked
    crew.check()


def test_a_lost_state_is_told_before_anything_is_made_again(tmp_path: Path) -> None:
    cloud = Cloud(VOLUME, NETWORK)
    crew = Backends(tmp_path, cloud)
    crew.deploy()
    crew.states.clear()
    with pytest.raises(RefusedError, match="may hold this participant's data"):
        crew.settle(goes_on=True)
    moved = Member("site-1", "site", "aws", Path("kits/site-1"), region="eu-west-1")
    with pytest.raises(RefusedError, match="may hold this participant's data"):
        crew.settle(moved, goes_on=True)
    assert cloud.things == [VOLUME, NETWORK]
    assert cloud.regions == ["eu-central-1"] * 2, "it is looked for where it stood"
    assert crew.settle().state is None, "who takes everything down is not asked"


def test_a_lost_state_of_what_holds_no_data_is_made_again(tmp_path: Path) -> None:
    cloud = Cloud(NETWORK)
    crew = Backends(tmp_path, cloud)
    crew.deploy("address")
    crew.states.clear()
    assert any("deleted Vpc site-1-vpc" in text for text in crew.settle(goes_on=True).told)
    assert cloud.things == []


def test_a_state_that_holds_what_stands_costs_no_look_into_the_cloud(tmp_path: Path) -> None:
    crew = Backends(tmp_path)
    crew.deploy()
    assert crew.settle(goes_on=True).state == STATE
    assert crew.deployment.realm.regions == []
