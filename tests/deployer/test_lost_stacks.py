"""With the passphrase of the stacks lost, what they made is still found and deleted, and the next `up` begins anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployer import session_reap
from deployer.cli import context
from deployer.cli.arguments import GlobalOptions
from deployer.deployment import Deployment
from deployer.errors import CloudError, RefusedError
from deployer.failures import from_diagnostics
from deployer.ledger import Ledger
from deployer.owner_words import owners_next
from deployer.settle import Found, Whose

MACHINE = Found("aws", "aws:ec2/instance:Instance", "i-1", "site-1-vm", "eu-central-1", size="m7i.large")


class Clouds:
    """AWS with one machine of the federation; Azure gives no answer."""

    kind, id = "real", "clouds"

    def __init__(self, ledger: Ledger) -> None:
        self.things = [MACHINE]
        self.whose = Whose("digits", ledger.deployment(), "site-1")

    def access(self, cloud: str, where: Any) -> Any:
        if cloud == "azure":
            raise CloudError("no answer", next_step="wait")

    def world(self, cloud: str, where: Any, access: Any) -> Clouds:
        return self

    def marked(self, federation: str) -> list[Whose]:
        return [self.whose] if self.things else []

    def check(self, whose: Whose) -> None:
        return

    def find(self, whose: Whose) -> list[Found]:
        return list(self.things) if whose == self.whose else []

    def delete(self, found: Any, on_step: Any) -> None:
        self.things = [thing for thing in self.things if thing not in found]


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A deployment whose stacks stand, and whose passphrase is gone."""
    ledger = Ledger(tmp_path / "ledger.db")
    deployment = Deployment(
        federation="digits",
        owner="",
        by="lead",
        state_dir=tmp_path,
        members={},
        ssh_from="auto",
        admins={},
        leads=(),
        digest="",
        realm=Clouds(ledger),  # type: ignore[arg-type]
        ledger=ledger,
    )
    ledger.set_realm("real", "clouds")
    ledger.record("site-1", "registered", target="aws", region="eu-central-1")
    deployment.home.ensure()
    deployment.home.work_dir("site-1").mkdir(parents=True)
    (deployment.home.work_dir("site-1") / "Pulumi.site-1.yaml").write_text("encryptionsalt: x\n")
    deployment.home.passphrase_path.unlink()
    monkeypatch.setattr(session_reap, "_deployment", lambda workspace: deployment)
    monkeypatch.setattr(context, "workspace", lambda: SimpleNamespace(kits_dir=tmp_path / "kits"))
    before = context.options()
    yield deployment
    context.configure(before)


def reap(*, yes: bool, stacks_lost: bool) -> None:
    context.configure(GlobalOptions(yes=yes, json=True))
    session_reap.reap([], None, stacks_lost)


def test_stacks_that_nobody_can_read_are_given_up_when_nothing_of_them_is_left(lost: Deployment) -> None:
    clouds: Any = lost.realm
    with pytest.raises(CloudError, match="Without one: fedspan reap --lost-stacks"):
        reap(yes=True, stacks_lost=False)
    with pytest.raises(RefusedError, match=r"Delete 1 resources, whatever runs there\?"):
        reap(yes=False, stacks_lost=True)
    assert clouds.things == [MACHINE], "it asks first"
    assert lost.home.has_stacks()
    reap(yes=True, stacks_lost=True)
    assert clouds.things == []
    assert not lost.home.has_stacks()
    assert lost.home.ensure() is True, "a new passphrase for new stacks"


def test_stacks_are_kept_while_a_cloud_that_may_hold_something_gives_no_answer(lost: Deployment) -> None:
    lost.ledger.record("site-2", "registered", target="azure", region="westeurope")
    with pytest.raises(CloudError, match="azure westeurope gave no answer, so something may be left there"):
        reap(yes=True, stacks_lost=True)
    assert lost.home.has_stacks()


def test_a_kits_owner_has_no_reap_and_is_told_what_to_do_instead() -> None:
    error = from_diagnostics("site-1", [], said="error: incorrect passphrase")
    assert "fedspan reap --lost-stacks" in str(error)
    told = owners_next(error.next_step or "", "site-1", Path("kit"), "aws")
    assert "fedspan " not in told.replace("`fedspan:federation`", "")
    assert "by its tag `fedspan:federation`" in told
