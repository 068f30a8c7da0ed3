"""Pure decisions: steps from events, errors from what clouds say, plans against plans, rules from addresses."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployer.checkpoint import tells_its_machine
from deployer.cli import context
from deployer.cli.arguments import GlobalOptions
from deployer.cost import Cap
from deployer.cost import check as check_cost
from deployer.crew import Several, engines_at_once, together
from deployer.engine import Preview, check_agreed, only_rules
from deployer.engine_events import Collector, Diagnostic, Step, merged, short_type, step_of
from deployer.errors import (
    BusyError,
    CapacityError,
    CloudError,
    CredentialsError,
    FedspanError,
    Interrupted,
    RefusedError,
    SpecError,
    UsageError,
)
from deployer.failures import from_diagnostics
from deployer.ingress import Opening, check_cidr, cidrs, fitted, runtime_openings, ssh_openings
from deployer.live import Silent
from deployer.member import Member
from deployer.my_address import SERVICES, agreed, ask_the_world
from deployer.owner_choice import chosen
from deployer.plan import ParticipantPlan, Plan, check_same, read
from deployer.plan_view import price_line, render
from deployer.results import check_idle, finished
from deployer.session_allow import ask_if_wide, nearest
from deployer.stack_work import Outcome, StackWork
from stacks.catalogue import choose_size

VM = "aws:ec2/instance:Instance"
URN = "urn:pulumi:site-1::fedspan-digits::fedspan:aws:Participant$aws:ec2/instance:Instance::site-1-vm"


def step(action: str, name: str = "site-1-vm", type_: str = VM, *reasons: str) -> Step:
    return Step(f"urn::{name}", type_, name, action, reasons)  # type: ignore[arg-type]  # tests name actions as text


def test_outputs_are_of_the_machine_that_the_stack_holds_or_made_again() -> None:
    def tells(*resources: dict[str, object]) -> bool:
        return tells_its_machine({"resources": resources}, "ubuntu-24.04")

    told: dict[str, object] = {"public_ip": "192.0.2.7", "vm_id": "i-1", "image": "ubuntu-24.04"}
    stack = {"type": "pulumi:pulumi:Stack", "outputs": told}
    machine = {"type": VM, "custom": True, "id": "i-1"}
    assert tells(stack, machine)
    assert not tells({**stack, "outputs": {"public_ip": "192.0.2.7"}}, machine)  # made, and cut off then
    assert not tells(stack, {**machine, "id": "i-2"})  # replaced, and cut off then
    assert not tells({**stack, "outputs": {**told, "image": "dlami-ubuntu-22.04"}}, machine)
    time = {"dailyRecurrence": {"time": "0501"}}
    shutdown = {"type": "azure-native:devtestlab:GlobalSchedule", "custom": True, "id": "s", "inputs": time}
    armed = {**stack, "outputs": {**told, "deallocate_at": "0501"}}
    assert tells(armed, machine, shutdown)
    assert not tells(stack, machine, shutdown)  # armed, and cut off then
    assert not tells(armed, machine)  # deleted, and cut off then


# -- steps ------------------------------------------------------------------------------------------------------


def event(op: str, type_: str = VM, **more: object) -> SimpleNamespace:
    return SimpleNamespace(op=op, type=type_, urn=URN, detailed_diff=None, diffs=None, **more)


def test_what_changes_nothing_is_no_step() -> None:
    assert step_of(event("same")) is None
    assert step_of(event("read")) is None
    assert step_of(event("create", "pulumi:providers:aws")) is None
    assert step_of(event("create", "fedspan:aws:Participant")) is None


def test_a_replacement_is_one_step_with_its_reasons() -> None:
    told = [step("delete"), replace(step("replace"), reasons=("userData",)), step("create")]
    found = merged([told[1], told[0]])
    assert [(entry.action, entry.reasons) for entry in found] == [("replace", ("userData",))]


def test_types_are_told_shortly() -> None:
    assert short_type(VM) == "ec2.Instance"
    assert short_type("azure-native:network:Subnet") == "network.Subnet"


def test_colours_and_the_closing_line_are_not_causes() -> None:
    collector = Collector()
    for message in ("<{%reset%}>no capacity<{%reset%}>\n", "update failed\n"):
        diagnostic = SimpleNamespace(message=message, severity="error", urn=URN)
        collector(
            SimpleNamespace(
                resource_pre_event=None, res_outputs_event=None, res_op_failed_event=None, diagnostic_event=diagnostic
            )
        )
    assert [entry.message for entry in collector.diagnostics] == ["no capacity"]
    assert collector.diagnostics[0].title == "ec2.Instance site-1-vm"


def test_deletes_that_nobody_was_shown_are_refused() -> None:
    check_agreed("site-1", [step("delete")], [step("delete")])
    check_agreed("site-1", [step("create"), step("update")], [])
    with pytest.raises(RefusedError, match=r"delete ec2\.Instance site-1-vm"):
        check_agreed("site-1", [step("delete")], [step("update")])
    with pytest.raises(RefusedError):
        check_agreed("site-1", [step("replace")], [step("delete")])


# -- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("api error InsufficientInstanceCapacity: no capacity in eu-central-1a", CapacityError, 8),
        ('Status=409 Code="SkuNotAvailable" Message="not available in westeurope"', CapacityError, 8),
        ('Code="ZonalAllocationFailed"', CapacityError, 8),
        ("VcpuLimitExceeded: You have requested more vCPU capacity", CapacityError, 8),
        ('Code="OperationNotAllowed" Message="exceeding approved Total Regional Cores quota"', CapacityError, 8),
        ("ExpiredToken: The security token included in the request is expired", CredentialsError, 5),
        ("UnauthorizedOperation: You are not authorized", CredentialsError, 5),
        ('Code="AuthorizationFailed"', CredentialsError, 5),
        ("resource violates plan: properties changed", RefusedError, 13),
        ("DependencyViolation: resource has a dependent object", CloudError, 7),
    ],
)
def test_what_a_cloud_says_becomes_the_right_error(text: str, kind: type[FedspanError], code: int) -> None:
    error = from_diagnostics("site-1", [Diagnostic(URN, text)], log="x.log")
    assert type(error) is kind
    assert error.exit_code == code
    assert error.participant == "site-1"
    assert text.split()[0] in str(error)
    assert error.next_step


def test_a_failure_names_participant_resource_cause_next_command_and_log() -> None:
    error = from_diagnostics("site-1", [Diagnostic(URN, "boom")], log="/logs/site-1.log")
    assert str(error) == (
        "site-1: ec2.Instance site-1-vm failed: boom\n  next: fedspan up site-1\n  log: /logs/site-1.log"
    )


def test_a_locked_stack_a_wrong_passphrase_and_a_damaged_checkpoint_are_told_apart() -> None:
    locked = from_diagnostics("site-1", [], said="stderr: error: the stack is currently locked by 1 lock(s).")
    assert isinstance(locked, BusyError)
    assert "passphrase" in str(from_diagnostics("site-1", [], said="error: incorrect passphrase"))
    assert "damaged" in str(from_diagnostics("site-1", [], said="error: failed to load checkpoint"))


def test_no_traceback_of_a_program_reaches_the_user() -> None:
    said = "python inline source runtime error: wrong\nTraceback (most recent call last):\n  File x\nValueError: wrong"
    assert "File x" not in str(from_diagnostics("site-1", [Diagnostic("", said)]))


def test_several_failures_are_told_together_with_the_first_ones_code() -> None:
    errors: dict[str, BaseException] = {"a": CapacityError("no room", participant="a"), "b": SpecError("bad")}
    error = together(errors, 3)
    assert isinstance(error, Several)
    assert error.exit_code == 8
    assert "2 of 3 participants failed" in str(error)
    assert "a: no room" in str(error)
    assert isinstance(together({**errors, "c": Interrupted("stopped")}, 3), Interrupted)
    assert together({"a": errors["a"]}, 3) is errors["a"]


def test_running_engines_are_bounded_by_memory() -> None:
    assert engines_at_once("real", 2400, 10) == 3
    assert engines_at_once("real", 100, 10) == 1
    assert engines_at_once("sandbox", 64000, 4) == 4


# -- plans ------------------------------------------------------------------------------------------------------


def plan_of(*steps: Step, openings: tuple[Opening, ...] = (), digest: str = "d") -> Plan:
    part = ParticipantPlan("site-1", "site", "aws", "eu-central-1", size="m7i.large", steps=steps, openings=openings)
    return Plan("digits", "sandbox", "s1", digest, "2026-11-21T09:00:00Z", (part,))


def test_a_saved_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    plan = plan_of(step("replace", "site-1-vm", VM, "userData"), openings=(Opening(22, "198.51.100.10/32", "you"),))
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

        def preview(self, program: object, plan_name: str) -> Preview:
            return Preview(wanted[0])

    planner = SimpleNamespace(openings=lambda _: (), arguments=lambda _: None)
    crew = SimpleNamespace(engine=lambda _: Engine(), slot=nullcontext, screen=Silent())
    part = SimpleNamespace(member=SERVER, program=lambda: None)
    work = StackWork(crew, planner, {}, Outcome())  # type: ignore[arg-type]  # what it asks of them, and no more
    wanted[:] = [()]
    work.rules_again(part)  # type: ignore[arg-type]
    wanted[:] = [(step("update", "server-vm"),)]
    with pytest.raises(RefusedError, match="server: other changes than rules are waiting"):
        work.rules_again(part)  # type: ignore[arg-type]


# -- rules ------------------------------------------------------------------------------------------------------


def member(name: str, target: str = "aws", **more: object) -> Member:
    role = "server" if name == "server" else "site"
    return Member(name, role, target, Path("kits") / name, **more)  # type: ignore[arg-type]  # free-form test values


SERVER = member("server", "azure", port=8002)


def test_the_servers_port_is_open_to_sites_allowed_networks_and_admins_only() -> None:
    members = [SERVER, member("site-1"), member("site-2"), member("site-3", "kit", egress=("203.0.113.7/32",))]
    found = runtime_openings(
        SERVER, members, {"site-1": "52.1.2.3"}, {"site-2": ["52.9.9.9/32"]}, {"ana": ["198.51.100.0/24"]}
    )
    assert [(opening.source, opening.who) for opening in found] == [
        ("52.1.2.3/32", "site-1"),
        ("address of site-2", "site-2"),
        ("203.0.113.7/32", "site-3"),
        ("52.9.9.9/32", "site-2"),
        ("198.51.100.0/24", "ana"),
    ]
    assert cidrs(found, 8002)[-1] == "203.0.113.7/32"


def test_two_sites_behind_one_nat_share_a_rule() -> None:
    sites = [member(name, "kit", egress=("203.0.113.7/32",)) for name in ("site-1", "site-2")]
    found = runtime_openings(SERVER, [SERVER, *sites], {}, {}, {})
    assert [(opening.cidr, opening.who) for opening in found] == [("203.0.113.7/32", "site-1, site-2")]


def test_networks_are_joined_only_where_a_security_group_would_not_take_them() -> None:
    sites = tuple(f"52.1.2.{number}/32" for number in range(64))
    assert fitted(("198.51.100.10/32",), sites[:59]) == (("198.51.100.10/32",), sites[:59])
    assert fitted(("198.51.100.10/32",), sites) == (("198.51.100.10/32",), ("52.1.2.0/26",))
    scattered = tuple(f"52.1.{number}.7/32" for number in range(64))
    assert fitted(("198.51.100.10/32",), scattered)[1] == scattered  # refused later, by the stack's arguments


def test_ssh_is_never_open_to_the_world() -> None:
    with pytest.raises(SpecError, match="opens SSH to the world"):
        ssh_openings(22, ["0.0.0.0/0"])
    with pytest.raises(SpecError, match="names no network"):
        ssh_openings(22, [])


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.0/4", "banana", "52.1.2.3/24"])
def test_allow_refuses_what_is_no_network_or_too_wide(text: str) -> None:
    with pytest.raises(SpecError):
        check_cidr(text)


def test_a_wide_network_is_let_in_only_with_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "interactive", lambda: False)
    context.configure(GlobalOptions())
    ask_if_wide("52.1.2.0/24")
    with pytest.raises(RefusedError, match=r"all 16777216 addresses of 52\.0\.0\.0/8"):
        ask_if_wide("52.0.0.0/8")
    context.configure(GlobalOptions(yes=True))
    try:
        ask_if_wide("52.0.0.0/8")
    finally:
        context.configure(GlobalOptions())


def test_the_nearest_site_is_offered() -> None:
    assert nearest("site1", ["site-1", "site-2"]) == "site-1"
    assert nearest("munich", []) == "SITE"


def test_ones_own_address_needs_two_services_that_agree() -> None:
    assert agreed({"a": "52.1.2.3", "b": "52.1.2.3", "c": "no answer"}) == "52.1.2.3"
    assert agreed({"a": "52.1.2.3", "b": "no answer"}) is None
    assert agreed({"a": "52.1.2.3", "b": "52.1.2.3", "c": "9.9.9.9"}) is None
    assert agreed({"a": "10.0.0.1", "b": "10.0.0.1"}) is None
    answers = dict(zip(SERVICES, ("52.1.2.3", "52.1.2.3", "8.8.8.8", "52.1.2.3"), strict=True))
    with pytest.raises(FedspanError, match="can't be found out"):
        ask_the_world(answers.__getitem__)
    assert ask_the_world(lambda url: "52.1.2.3") == "52.1.2.3"


# -- jobs and owners --------------------------------------------------------------------------------------------


def test_down_refuses_while_a_job_runs_unless_it_is_aborted() -> None:
    jobs = [{"id": "j1", "state": "FINISHED"}, {"id": "j2", "state": "RUNNING"}]
    with pytest.raises(RefusedError, match="j2"):
        check_idle(jobs, abort=False)
    assert check_idle(jobs, abort=True) == ["j2"]
    assert finished(jobs) == ["j1"]


def test_an_owner_chooses_once() -> None:
    first = chosen(None, {"cloud": "aws", "region": "eu-west-1", "size": None}, "site-2")
    again = chosen(first.document(), {"size": "m7i.xlarge", "cloud": None}, "site-2")
    assert (again.cloud, again.region, again.size) == ("aws", "eu-west-1", "m7i.xlarge")
    with pytest.raises(UsageError, match="which cloud"):
        chosen(None, {}, "site-2")
    with pytest.raises(UsageError, match="which region"):
        chosen(None, {"cloud": "azure"}, "site-2")
    with pytest.raises(UsageError, match="oracle is no cloud"):
        chosen(None, {"cloud": "oracle"}, "site-2")
