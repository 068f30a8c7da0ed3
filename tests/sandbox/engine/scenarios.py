"""What a deployer asks of the engine, one function a scenario. Each drives a fresh stack."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pulumi
from pulumi import ResourceOptions as Opts

from .bench import Bench, Group, Thing

Scenario = Callable[[Bench], None]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def chain(size: int = 1, zone: str = "z1", **extra: Any) -> Any:
    """a <- b <- c, with a plain and a secret output."""

    def program() -> None:
        a = Thing("a", size=size, zone=zone, **extra)
        b = Thing("b", size=2, zone="z1", peer=a.address)
        Thing("c", size=3, zone="z1", peer=b.address)
        pulumi.export("address", b.address)
        pulumi.export("token", pulumi.Output.secret("hunter2"))

    return program


@scenario
def create_and_no_change(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.step("preview of a first update", "preview")
    b.step("first update", "up", show_secrets=False)
    b.step("update with nothing to do", "up", show_secrets=False)
    b.step("preview with nothing to do", "preview")
    b.step("outputs", "outputs")
    b.step("export", "export_stack")
    b.step("history", "history", show_secrets=False)
    b.step("info", "info")
    b.step("destroy", "destroy", show_secrets=False)
    b.step("update after destroy", "up", show_secrets=False)
    b.step("destroy and remove", "destroy", remove=True, show_secrets=False)
    b.step("select what is gone", "open", create=False)


@scenario
def update_in_place(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.step("create", "up", show_secrets=False)
    b.program = chain(size=5)
    b.step("preview", "preview")
    b.step("update", "up", show_secrets=False)
    b.program = chain(size=5, colour="red")
    b.step("a property is added", "up", show_secrets=False)
    b.program = chain(size=5)
    b.step("a property is taken away", "up", show_secrets=False)


@scenario
def replace(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain(slot="s1")
    b.step("create", "up", show_secrets=False)
    b.program = chain(zone="z2", slot="s1")
    b.step("preview of create-before-delete", "preview")
    b.step("create-before-delete", "up", show_secrets=False)
    b.program = chain(zone="z2", slot="s2")
    b.step("preview of delete-before-create, dependents too", "preview")
    b.step("delete-before-create", "up", show_secrets=False)


@scenario
def resource_removed_from_program(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.step("create", "up", show_secrets=False)

    def shorter() -> None:
        Thing("a", size=1, zone="z1")

    b.program = shorter
    b.step("preview", "preview")
    b.step("b and c go", "up", show_secrets=False)


@scenario
def create_fails_then_recovers(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.control(fail_create={"b": "api error InsufficientInstanceCapacity: no capacity in z1"})
    b.step("b fails", "up", show_secrets=False)
    b.step("history after the failure", "history", show_secrets=False)
    b.control()
    b.step("goes on", "up", show_secrets=False)


@scenario
def independent_work_when_one_fails(b: Bench) -> None:
    def program() -> None:
        Thing("slow", size=1)
        Thing("bad", size=1)
        Thing("fine", size=1)
        Thing("after", size=1, opts=Opts(depends_on=[]))

    b.step("init", "open")
    b.program = program
    b.control(fail_create={"bad": "boom"}, delay={"slow": 1.5, "bad": 0.5})
    b.step("what else is finished", "up", show_secrets=False)
    b.control(fail_create={"bad": "boom"})
    b.step("with continue_on_error", "up", show_secrets=False, continue_on_error=True)
    b.step("destroy", "destroy", show_secrets=False)


@scenario
def update_and_delete_fail(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.step("create", "up", show_secrets=False)
    b.control(fail_update={"a": "conflict: being modified"}, fail_delete={"a": "in use", "b": "in use"})
    b.program = chain(size=9)
    b.step("update fails", "up", show_secrets=False)
    b.step("destroy fails at b", "destroy", show_secrets=False)
    b.control()
    b.step("destroy goes on", "destroy", show_secrets=False)


@scenario
def created_but_not_initialised(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.control(partial_create={"b": "timed out waiting for state 'running'"})
    b.step("b has an id but is not ready", "up", show_secrets=False)
    b.control()
    b.step("preview of the repair", "preview")
    b.step("repair", "up", show_secrets=False)


@scenario
def replacement_fails_half_way(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.step("create", "up", show_secrets=False)
    b.program = chain(zone="z2")
    b.control(fail_delete={"a": "still attached"})
    b.step("the old one cannot be deleted", "up", show_secrets=False)
    b.control()
    b.step("next update cleans up", "up", show_secrets=False)


@scenario
def killed_in_a_create(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.control(delay={"b": 6})
    b.during_create("b", Bench.kill)
    b.step("killed while b is being made", "up", show_secrets=False)
    time.sleep(6)
    b.control()
    b.step("the lock is in the way", "up", show_secrets=False)
    b.step("cancel", "cancel")
    b.step("preview says what is pending", "preview")
    b.step("update with a pending create", "up", show_secrets=False)


@scenario
def killed_then_pending_creates_cleared(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.control(delay={"b": 6})
    b.during_create("b", Bench.kill)
    b.step("killed while b is being made", "up", show_secrets=False)
    time.sleep(6)
    b.control()
    b.step("cancel", "cancel")
    b.step("refresh", "refresh", show_secrets=False)
    b.step("refresh that clears pending creates", "refresh", show_secrets=False, clear_pending_creates=True)
    b.step("update", "up", show_secrets=False)
    b.step("destroy", "destroy", show_secrets=False)


@scenario
def interrupted_once(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.control(delay={"b": 4})
    b.during_create("b", Bench.interrupt)
    b.step("one SIGINT while b is being made", "up", show_secrets=False)
    b.control()
    b.step("goes on", "up", show_secrets=False)


@scenario
def two_updates_at_once(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.control(delay={"a": 5})
    first = threading.Thread(target=lambda: b.stack.up(show_secrets=False))
    first.start()
    b.wait_for_create("a")
    b.step("second while the first runs", "up", show_secrets=False)
    first.join()
    b.step("afterwards", "up", show_secrets=False)


@scenario
def drift_and_refresh(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.step("create", "up", show_secrets=False)

    def change(things: dict[str, Any]) -> None:
        for key, value in list(things.items()):
            if key.startswith("thing-a-"):
                value["size"] = 77.0
            if key.startswith("thing-c-"):
                del things[key]

    b.drift(change)
    b.step("preview of a refresh", "preview_refresh")
    b.step("preview with refresh", "preview", refresh=True)
    b.step("refresh", "refresh", show_secrets=False)
    b.step("update mends it", "up", show_secrets=False)
    b.drift(change)
    b.step("update with refresh", "up", refresh=True, show_secrets=False)
    b.drift(lambda things: things.clear())
    b.step("destroy what is already gone", "destroy", refresh=True, show_secrets=False)


@scenario
def targets_and_dependents(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.step("create", "up", show_secrets=False)
    urn = "urn:pulumi:dev::proj::toy:index:Thing::{}".format
    b.step("destroy a, which others need", "destroy", target=[urn("a")], show_secrets=False)
    b.step("destroy b with its dependents", "destroy", target=[urn("b")], target_dependents=True, show_secrets=False)
    b.program = chain(size=8)
    b.step("update only a", "up", target=[urn("a")], show_secrets=False)
    b.step("replace only a", "up", replace=[urn("a")], show_secrets=False)


@scenario
def options_of_resources(b: Bench) -> None:
    def program(size: int = 1, renamed: bool = False, keep: bool = True) -> Any:
        def run() -> None:
            group = Group("g")
            first = Thing("first", size=size, opts=Opts(parent=group, ignore_changes=["size"]))
            Thing(
                "second",
                size=1,
                opts=Opts(parent=group, depends_on=[first], custom_timeouts=pulumi.CustomTimeouts(create="7m")),
            )
            Thing("protected", size=1, opts=Opts(protect=True))
            if keep:
                Thing("kept", size=1, opts=Opts(retain_on_delete=True))
            name = "new-name" if renamed else "old-name"
            Thing(name, size=1, opts=Opts(aliases=[pulumi.Alias(name="old-name")] if renamed else None))
            Thing("dbr", zone="z2" if renamed else "z1", opts=Opts(delete_before_replace=True))
            Thing("roc", note="y" if renamed else "x", opts=Opts(replace_on_changes=["note"]))
            Thing("leaf", size=1, opts=Opts(deleted_with=first))

        return run

    b.step("init", "open")
    b.program = program()
    b.step("create", "up", show_secrets=False)
    b.program = program(size=9, renamed=True, keep=False)
    b.step("preview of the change", "preview")
    b.step("change", "up", show_secrets=False)
    b.step("destroy with a protected resource", "destroy", show_secrets=False)


@scenario
def secrets(b: Bench) -> None:
    def program() -> None:
        a = Thing("a", note=pulumi.Output.secret("s3cret-input"), password="pw-from-provider")
        Thing("b", peer=a.address, opts=Opts(additional_secret_outputs=["address"]))
        pulumi.export("note", a.address)
        pulumi.export("hidden", pulumi.Output.secret({"deep": ["x", 1]}))

    b.step("init", "open")
    b.program = program
    b.step("preview", "preview")
    b.step("create", "up", show_secrets=False)
    b.step("no change", "up", show_secrets=False)
    b.step("export", "export_stack")
    b.passphrase = "wrong"
    b.step("select with another passphrase", "open", create=False)
    b.step("update with another passphrase", "up", show_secrets=False)


@scenario
def program_errors(b: Bench) -> None:
    b.step("init", "open")

    def raises() -> None:
        Thing("a", size=1)
        raise ValueError("the spec names no region")

    def bad_input() -> None:
        Thing("a", size=-1)

    def twice() -> None:
        Thing("a", size=1)
        Thing("a", size=1)

    def lookup() -> None:
        found = pulumi.runtime.invoke("toy:index:lookup", {"key": "image"})
        pulumi.export("found", found.value["value"])
        Thing("a", note=found.value["value"])

    def warn() -> None:
        pulumi.log.warn("a warning of the program")
        pulumi.log.error("an error said, not raised")
        Thing("a", size=1)

    b.program = raises
    b.step("the program raises", "up", show_secrets=False)
    b.program = bad_input
    b.step("the provider's check refuses an input", "preview")
    b.step("the same in an update", "up", show_secrets=False)
    b.program = twice
    b.step("the same name twice", "up", show_secrets=False)
    b.program = lookup
    b.step("a function of the provider", "up", show_secrets=False)
    b.control(fail_invoke="AccessDenied: not authorised to read images")
    b.step("the function fails", "up", show_secrets=False)
    b.control()
    b.program = warn
    b.step("the program logs a warning and an error", "up", show_secrets=False)
    b.control(fail_configure="no credentials found")
    b.step("the provider has no credentials", "up", show_secrets=False)


@scenario
def explicit_provider_and_transforms(b: Bench) -> None:
    class Toy(pulumi.ProviderResource):
        def __init__(self, name: str, **props: Any) -> None:
            super().__init__("toy", name, props)

    def program(region: str) -> Any:
        def run() -> None:
            def tag(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult:
                return pulumi.ResourceTransformResult(props={**args.props, "tag": "t"}, opts=args.opts)

            pulumi.runtime.register_resource_transform(tag)
            provider = Toy("west", region=region, token=pulumi.Output.secret("tok"))
            Thing("a", size=1, opts=Opts(provider=provider))

        return run

    b.step("init", "open")
    b.program = program("us-west-2")
    b.step("create", "up", show_secrets=False)
    b.program = program("us-east-1")
    b.step("the provider's configuration changes", "up", show_secrets=False)
    b.step("destroy", "destroy", show_secrets=False)


@scenario
def plan_saved_and_applied(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    plan = str(b.home / "plan.json")
    b.step("preview saves a plan", "preview", plan=plan)
    b.step("update by the plan", "up", plan=plan, show_secrets=False)
    b.program = chain(size=4)
    b.step("another plan", "preview", plan=plan)
    b.program = chain(size=6)
    b.step("the program no longer matches the plan", "up", plan=plan, show_secrets=False)


@scenario
def stack_management(b: Bench) -> None:
    b.step("init", "open")
    b.step("init again", "open")
    b.step("config set", "set_config", "proj:region", pulumi.automation.ConfigValue("us-west-2"))
    b.step("config all", "get_all_config")
    b.step("outputs of an empty stack", "outputs")
    b.step("export of an empty stack", "export_stack")
    b.program = chain()
    b.step("create", "up", show_secrets=False)
    workspace = b.stack.workspace
    b.stack = workspace  # type: ignore[assignment]
    b.step("list", "list_stacks")
    b.step("remove a stack that has resources", "remove_stack", "dev")
    b.step("who am I", "who_am_i")


@scenario
def large_graph(b: Bench) -> None:
    """Forty machines that take a second each: parallel, and in order where one needs another."""

    def program() -> None:
        base = Thing("base", size=1)
        for number in range(40):
            Thing(f"m{number:02}", peer=base.address)

    b.control(delay={f"m{n:02}": 1.0 for n in range(40)})
    b.step("init", "open")
    b.program = program
    b.step("create", "up", show_secrets=False)
    b.step("destroy, four at a time", "destroy", show_secrets=False, parallel=4)


@scenario
def import_existing(b: Bench) -> None:
    """Settling an orphan by adopting it."""

    def program(**options: Any) -> Any:
        def run() -> None:
            Thing("a", size=1, zone="z1", opts=Opts(**options))

        return run

    b.world.mkdir(exist_ok=True)
    b.drift(lambda things: things.update({"thing-a-9": {"size": 1.0, "zone": "z1"}}))
    b.step("init", "open")
    b.program = program(import_="thing-a-9")
    b.step("preview of an import", "preview")
    b.step("import", "up", show_secrets=False)
    b.program = program()
    b.step("afterwards without the option", "up", show_secrets=False)
    b.step("destroy", "destroy", show_secrets=False)
    b.program = program(import_="thing-that-is-not")
    b.step("import of what is not there", "up", show_secrets=False)
    b.drift(lambda things: things.update({"thing-a-8": {"size": 5.0, "zone": "z1"}}))
    b.program = program(import_="thing-a-8")
    b.step("import with other inputs", "up", show_secrets=False)


@scenario
def settled_by_editing_the_state(b: Bench) -> None:
    """After a crash: the orphan is deleted in the world and its pending operation taken out of the exported state."""
    b.step("init", "open")
    b.program = chain()
    b.control(delay={"b": 6})
    b.during_create("b", Bench.kill)
    b.step("killed while b is being made", "up", show_secrets=False)
    time.sleep(6)
    b.control()
    b.step("cancel", "cancel")
    state = b.step("export", "export_stack")
    state.deployment.pop("pending_operations", None)
    b.drift(lambda things: things.pop("thing-b-1"))
    b.step("import of the edited state", "import_stack", state)
    b.step("update", "up", show_secrets=False)
    b.step("destroy", "destroy", show_secrets=False)


@scenario
def provider_dies(b: Bench) -> None:
    """The plugin goes away in the middle of a create: what a lost network or a killed helper looks like."""
    b.step("init", "open")
    b.program = chain()
    b.control(delay={"b": 6})
    b.during_create("b", lambda _pid: b.provider.kill() if b.provider else None)
    b.step("the provider is killed while b is being made", "up", show_secrets=False)


@scenario
def interrupted_twice(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.control(delay={"b": 6})
    b.during_create("b", Bench.interrupt)
    b.during_create("b", Bench.interrupt, after=1.7)
    b.step("two SIGINTs while b is being made", "up", show_secrets=False)
    time.sleep(6)
    b.control()
    b.step("afterwards", "up", show_secrets=False)


@scenario
def read_fails(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.step("create", "up", show_secrets=False)
    b.control(fail_read={"b": "RequestLimitExceeded: rate exceeded"})
    b.step("refresh", "refresh", show_secrets=False)
    b.step("update with refresh", "up", refresh=True, show_secrets=False)
    b.control()
    b.step("update", "up", show_secrets=False)


@scenario
def damaged_state(b: Bench) -> None:
    b.step("init", "open")
    b.program = chain()
    b.step("create", "up", show_secrets=False)
    path = b.home / "state" / ".pulumi" / "stacks" / "proj" / "dev.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    b.damaged = True
    b.step("update on a truncated checkpoint", "up", show_secrets=False)
    path.write_text(whole)
    b.damaged = False
    b.step("update on the whole one again", "up", show_secrets=False)
