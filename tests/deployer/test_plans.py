"""Plans: kept, priced, capped, and applied to what they were made for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployer.cost import Cap
from deployer.cost import check as check_cost
from deployer.engine import Preview, only_rules
from deployer.engine_events import Step
from deployer.errors import RefusedError, UsageError
from deployer.ingress import Opening
from deployer.live import Silent
from deployer.plan import ParticipantPlan, Plan, read
from deployer.plan_same import check_same
from deployer.plan_view import price_line, render
from deployer.stack_work import Outcome, StackWork
from stacks.catalogue import choose_size
from tests.deployer.decision_samples import SERVER, VM, step


def plan_of(*steps: Step, openings: tuple[Opening, ...] = (), digest: str = "d") -> Plan:
    part = ParticipantPlan("site-1", "site", "aws", "eu-central-1", size="m7i.large", steps=steps, openings=openings)
    return Plan("digits", "sandbox", "s1", digest, "2026-11-21T09:00:00Z", (part,))


def test_a_saved_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    plan = plan_of(step("replace", "site-1-vm", VM, "userData"), openings=(Opening(22, "198.51.100.10/32", "you"),))
    plan = replace(plan, participants=tuple(replace(part, self_deallocate=True) for part in plan.participants))
    assert [line for line in render(plan) if "site-1 deallocates itself: its machine gets an identity" in str(line)]
    plan.save(tmp_path / "plan.json")
    assert read(tmp_path / "plan.json") == plan
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(UsageError, match="is no plan"):
        read(tmp_path / "bad.json")
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(UsageError, match="is no plan") as caught:
        read(tmp_path / "junk")
    assert "JSONDecodeError" not in str(caught.value)
    assert caught.value.next_step


def test_a_price_says_of_which_region_it_is_and_that_nobody_checked_it() -> None:
    offer = choose_size("aws", size="m7i.large")
    part = replace(
        plan_of(step("create")).participants[0],
        usd_hour=offer.usd_hour,
        as_of=offer.as_of,
        price_region=offer.price_region,
        price_source=offer.source,
        extras_usd_hour=0.01,
    )
    told = price_line(replace(plan_of(), participants=(part,)))
    assert f"the price in {offer.price_region}, other regions differ; source: {offer.source}" in told
    assert f"as of {offer.as_of}" in told


def test_a_move_says_that_the_state_is_deleted() -> None:
    note = "moves from aws us-east-1: everything there is deleted, the runtime's state too"
    part = replace(plan_of(step("delete"), step("create")).participants[0], note=note)
    assert f"  site-1 {note}" in list(render(replace(plan_of(), participants=(part,))))


def test_a_plan_is_applied_to_what_it_was_made_for_and_nothing_else() -> None:
    saved = plan_of(step("create"), step("update", "site-1-firewall"))
    check_same(saved, plan_of(step("create"), step("update", "site-1-firewall")))
    check_same(saved, plan_of(step("create")))  # an interrupted `up` has done a part
    with pytest.raises(RefusedError, match="has changed since"):
        check_same(saved, plan_of(step("create"), digest="other"))
    with pytest.raises(RefusedError, match=r"replace ec2\.Instance site-1-vm"):
        check_same(saved, plan_of(step("replace")))
    with pytest.raises(RefusedError, match="made for something else"):
        check_same(saved, replace(saved, realm_id="s2"))


def test_rules_for_addresses_that_were_shown_as_pending_are_in_the_plan() -> None:
    rule = step("create", "server-runtime-52-1-2-3-32", "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    pending = Opening(8002, "192.0.2.1/32", "site-1", pending=True)
    known = Opening(8002, "52.1.2.3/32", "site-1")
    check_same(plan_of(openings=(pending,)), plan_of(rule, openings=(known,)))
    check_same(plan_of(openings=(pending,)), plan_of(openings=(pending,)))
    with pytest.raises(RefusedError):
        check_same(plan_of(), plan_of(rule))
    with pytest.raises(RefusedError, match=r"create (ec2|vpc)"):  # a rule, and no address has become known
        check_same(plan_of(openings=(pending,)), plan_of(rule, openings=(pending,)))


def test_applying_a_plan_fills_in_awaited_addresses_and_opens_nothing_else() -> None:
    pending = Opening(8002, "192.0.2.1/32", "site-1", pending=True)
    known, allowed = Opening(8002, "52.1.2.3/32", "site-1"), Opening(8002, "52.9.9.9/32", "site-1")
    you, elsewhere = Opening(22, "198.51.100.10/32", "you"), Opening(22, "203.0.113.9/32", "you")
    shown = plan_of(openings=(pending, you))
    check_same(shown, plan_of(openings=(known, you)))
    check_same(plan_of(openings=(known, you)), plan_of(openings=(known,)))  # less is fine
    for openings in ((known, allowed, you), (pending, allowed, you)):
        with pytest.raises(RefusedError, match=r"port 8002 open for 52\..* \(site-1\)"):
            check_same(shown, plan_of(openings=openings))
    with pytest.raises(RefusedError, match=r"port 22 open for 203\.0\.113\.9/32 \(you\)"):
        check_same(shown, plan_of(openings=(known, elsewhere)))


def test_a_plan_above_the_cap_or_without_a_price_is_refused() -> None:
    part = replace(plan_of().participants[0], usd_hour=1.0, extras_usd_hour=0.25)
    plan = replace(plan_of(), participants=(part, replace(part, name="site-2")))
    check_cost(plan, Cap())
    check_cost(plan, Cap(2.5))
    with pytest.raises(RefusedError, match=r"lists at \$2\.500 an hour, above the cap of \$2\.4"):
        check_cost(plan, Cap(2.4))
    unknown = replace(plan, participants=(part, replace(part, name="site-2", usd_hour=None)))
    check_cost(unknown, Cap())
    with pytest.raises(RefusedError, match="the price of site-2 is not known"):
        check_cost(unknown, Cap(100))
    check_cost(unknown, Cap(1.25, allow_unknown=True))
    with pytest.raises(RefusedError):
        check_cost(unknown, Cap(1.0, allow_unknown=True))
    for wrong in (lambda: Cap(-1), lambda: Cap(float("nan")), lambda: Cap(allow_unknown=True)):
        with pytest.raises(UsageError):
            wrong()


def test_a_new_host_key_only_for_a_machine_that_is_replaced() -> None:
    assert ParticipantPlan("a", "site", "aws", steps=(step("replace"),)).replaces_machine
    assert not ParticipantPlan("a", "site", "aws", steps=(step("update"),)).replaces_machine


def test_allow_changes_rules_and_nothing_else() -> None:
    rule = step("create", "server-runtime-1", "azure-native:network:SecurityRule")
    only_rules("server", (rule,))
    with pytest.raises(RefusedError, match=r"server: other changes than rules are waiting: update ec2\.Instance"):
        only_rules("server", (rule, step("update")))


def test_when_a_peers_address_has_changed_the_engine_may_change_rules_alone() -> None:
    wanted: list[tuple[Step, ...]] = []

    class Engine:
        def state(self) -> dict[str, object]:
            return {}

    planner = SimpleNamespace(openings=lambda _: (), arguments=lambda _: None, preview=lambda *_: Preview(wanted[0]))
    crew = SimpleNamespace(engine=lambda _: Engine(), slot=nullcontext, screen=Silent())
    part = SimpleNamespace(member=SERVER, program=lambda: None)
    work = StackWork(crew, planner, {}, Outcome())  # type: ignore[arg-type]  # what it asks of them, and no more
    wanted[:] = [()]
    work.rules_again(part)  # type: ignore[arg-type]
    wanted[:] = [(step("update", "server-vm"),)]
    with pytest.raises(RefusedError, match="server: other changes than rules are waiting"):
        work.rules_again(part)  # type: ignore[arg-type]
