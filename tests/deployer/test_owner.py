"""A kit's owner deploys within the federation's residency, reads what others must type, and chooses with an answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deployer.errors import KitError, SpecError
from deployer.interrupts import LEADS_NEXT, OWNERS_NEXT, Interrupts
from deployer.live import Silent
from deployer.owner import OwnerUp
from deployer.owner_choice import Choice, check_residency, read_choice, to_close
from deployer.plan import Plan
from deployer.stack_work import Outcome
from deployer.up import Up
from startup_kits.kit import Kit
from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import provision
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace

SPEC = """\
version: 1
name: digits
residency: [EU]
server: {target: aws, region: eu-central-1}
sites: {site-1: {target: kit}}
admins: {ana@hospital-a.example: {role: lead}}
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A folder with a spec and its kits."""
    monkeypatch.setenv("FEDSPAN_PASSPHRASE", "correct horse battery staple")
    (tmp_path / "federation.yml").write_text(SPEC)
    found = Workspace.find(tmp_path / "federation.yml")
    provision(found, load_spec(found.spec_path), PassphraseSource.for_terminal(found.passphrase_path, None))
    return found


@pytest.fixture
def kit(workspace: Workspace) -> Kit:
    """The site's kit."""
    return Kit.verify(workspace.kits_dir / "site-1")


def test_the_residency_binds_a_kits_owner(kit: Kit) -> None:
    with pytest.raises(SpecError, match="us-east-1 lies in US") as caught:
        check_residency(kit, Choice("aws", "us-east-1"))
    assert "eu-central-1" in (caught.value.next_step or "")
    check_residency(kit, Choice("aws", "eu-west-1"))
    check_residency(kit, Choice("azure", "westeurope"))
    check_residency(replace(kit, residency=()), Choice("aws", "us-east-1"))


class Told(Silent):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def owner_up(kit: Kit, state: Path) -> tuple[OwnerUp, Told]:
    """The owner's `up`, with nothing below it but what it tells and writes."""
    told = Told()
    crew: Any = SimpleNamespace(
        screen=told, interrupts=Interrupts(), deployment=SimpleNamespace(state_dir=state, addresses=dict)
    )
    work = OwnerUp(crew, [])
    work.kit, work.choice = kit, Choice("aws", "eu-west-1")
    return work, told


def test_a_new_address_says_which_one_to_close(kit: Kit, tmp_path: Path) -> None:
    work, told = owner_up(kit, tmp_path)
    work.left, work.planner.addresses["site-1"] = "52.1.2.3", "52.9.9.9"
    work._endpoint()
    assert told.lines == [to_close(kit, "52.1.2.3"), "the server's owner must type: fedspan allow site-1 52.9.9.9/32"]
    assert "fedspan allow site-1 52.1.2.3/32 --remove" in told.lines[0]
    told.lines.clear()
    work.left = "52.9.9.9"
    work._endpoint()
    assert len(told.lines) == 1


def test_the_choice_is_kept_after_the_answer(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome()
    monkeypatch.setattr(Up, "apply", lambda self, plan: outcome)
    work, _ = owner_up(kit, tmp_path)
    assert read_choice(tmp_path) is None
    assert work.apply(cast(Plan, None)) is outcome
    assert (read_choice(tmp_path) or {})["region"] == "eu-west-1"


def test_an_interrupted_owner_reads_the_owners_commands() -> None:
    assert Interrupts(OWNERS_NEXT).stopped().next_step == OWNERS_NEXT
    assert "./start.sh --cloud" in OWNERS_NEXT
    assert Interrupts().stopped().next_step == LEADS_NEXT


def test_a_renamed_federation_is_refused_before_anything_is_planned(workspace: Workspace) -> None:
    from deployer.deployment import lead

    workspace.spec_path.write_text(SPEC.replace("name: digits", "name: digitz"))
    realm: Any = None
    with pytest.raises(KitError, match="federation digits, not to digitz"):
        lead(workspace, load_spec(workspace.spec_path), realm, complete=False)
