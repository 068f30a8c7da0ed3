"""What the records don't show: replacements with dependents, failures between their halves, names that change, hooks,
reads, secrets that a provider gives back in the clear, what goes on when one resource fails."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi import ResourceOptions as Opts
from pulumi import automation as auto

from .bench import Bench, Group, Thing
from .seen import topological


def up(bench: Bench, program: Callable[[], Any], **options: Any) -> auto.UpResult:
    bench.program = lambda: program() and None
    return bench.stack.up(show_secrets=False, **options)


def changes(result: auto.UpResult) -> dict[str, int]:
    return dict(result.summary.resource_changes or {})


def calls(bench: Bench, since: int = 0, *methods: str) -> list[str]:
    """`Create a` and so on, of what was asked for real."""
    wanted = methods or ("Create", "Update", "Delete")
    return [
        f"{c['method']} {c['name']}" for c in bench.calls()[since:] if c["method"] in wanted and not c.get("preview")
    ]


def state(bench: Bench, name: str) -> dict[str, Any]:
    found = [r for r in bench.checkpoint().get("resources") or [] if r["urn"].endswith(f"::{name}")]
    assert len(found) == 1
    return dict(found[0])


# -- replacements ------------------------------------------------------------------------------------------------------
def slotted(slot: str, **others: Any) -> Callable[[], None]:
    """b's zone comes from a, and a zone can't be changed in place; a's slot can't be taken twice."""

    def program() -> None:
        a = Thing("a", slot=slot, **others)
        b = Thing("b", zone=a.address)
        Thing("c", note=b.address)

    return program


def test_who_can_not_live_without_a_deleted_first_resource_goes_before_it_and_comes_after_it(bench: Bench) -> None:
    up(bench, slotted("s1"))
    before = len(bench.calls())
    result = up(bench, slotted("s2"))
    assert calls(bench, before) == ["Delete b", "Delete a", "Create a", "Create b", "Update c"]
    assert changes(result) == {"replace": 2, "same": 1, "update": 1}
    assert len(bench.things()) == 3


@pytest.mark.slow
def test_a_delete_that_fails_before_the_replacement_keeps_the_old_one_known(bench: Bench) -> None:
    up(bench, slotted("s1"))
    bench.control(fail_delete={"a": "in use"})
    with pytest.raises(auto.CommandError, match="in use"):
        up(bench, slotted("s2"))
    assert state(bench, "a")["id"] == "thing-a-1"
    assert "pendingReplacement" not in state(bench, "a")
    bench.control()
    up(bench, slotted("s2"))
    assert sorted(i.rsplit("-", 1)[0] for i in bench.things()) == ["thing-a", "thing-b", "thing-c"]
    assert changes(up(bench, slotted("s2"))) == {"same": 4}


@pytest.mark.slow
def test_a_create_that_fails_after_the_delete_is_made_up_for_without_a_second_delete(bench: Bench) -> None:
    up(bench, slotted("s1"))
    bench.control(fail_create={"a": "no capacity"})
    with pytest.raises(auto.CommandError, match="no capacity"):
        up(bench, slotted("s2"))
    assert state(bench, "a")["pendingReplacement"] is True
    bench.control()
    before = len(bench.calls())
    up(bench, slotted("s2"))
    assert calls(bench, before) == ["Create a", "Create b", "Update c"]
    assert len(bench.things()) == 3
    assert changes(up(bench, slotted("s2"))) == {"same": 4}


@pytest.mark.slow
def test_what_was_deleted_for_a_replacement_and_then_dropped_from_the_program_is_forgotten(bench: Bench) -> None:
    up(bench, slotted("s1"))
    bench.control(fail_create={"a": "no capacity"})
    with pytest.raises(auto.CommandError):
        up(bench, slotted("s2"))
    bench.control()
    up(bench, lambda: Thing("other", size=1))
    urns = [r["urn"].rsplit("::", 1)[1] for r in bench.checkpoint()["resources"]]
    assert sorted(urns) == ["default", "other", "proj-dev"]
    assert list(bench.things()) == ["thing-other-1"]


@pytest.mark.slow
def test_what_goes_with_a_replaced_resource_is_made_again_with_it(bench: Bench) -> None:
    def program(slot: str) -> Callable[[], None]:
        def run() -> None:
            a = Thing("a", slot=slot)
            Thing("leaf", size=1, opts=Opts(deleted_with=a))

        return run

    up(bench, program("s1"))
    before = len(bench.calls())
    up(bench, program("s2"))
    assert calls(bench, before) == ["Delete a", "Create a", "Create leaf"]  # the leaf went with a, unasked


@pytest.mark.slow
def test_a_protected_resource_is_neither_replaced_nor_dropped(bench: Bench) -> None:
    up(bench, lambda: Thing("a", zone="z1", opts=Opts(protect=True)))
    with pytest.raises(auto.CommandError, match="marked for protection"):
        up(bench, lambda: Thing("a", zone="z2", opts=Opts(protect=True)))
    with pytest.raises(auto.CommandError, match="cannot be deleted"):
        up(bench, lambda: None)
    assert list(bench.things()) == ["thing-a-1"]
    bench.stack.destroy(show_secrets=False, exclude_protected=True)
    assert list(bench.things()) == ["thing-a-1"]


# -- names and parents -------------------------------------------------------------------------------------------------
def test_children_of_a_renamed_component_are_the_same_resources(bench: Bench) -> None:
    class Site(pulumi.ComponentResource):
        def __init__(self, name: str, opts: Opts | None = None) -> None:
            super().__init__("toy:index:Site", name, None, opts)
            first = Thing(f"{name}-vm", size=1, opts=Opts(parent=self))
            Thing(f"{name}-disk", peer=first.address, opts=Opts(parent=self))

    up(bench, lambda: Site("site-1"))
    result = up(bench, lambda: Site("site-one", Opts(aliases=[pulumi.Alias(name="site-1")])))
    assert changes(result) == {"same": 4}
    assert len(bench.things()) == 2
    assert state(bench, "site-one-disk")["parent"].endswith("::site-one")


@pytest.mark.slow
def test_a_component_protects_its_children(bench: Bench) -> None:
    def program() -> None:
        Thing("a", size=1, opts=Opts(parent=Group("g", Opts(protect=True))))

    up(bench, program)
    assert state(bench, "a")["protect"] is True


@pytest.mark.slow
def test_two_resources_of_one_component_name_their_types_in_their_urns(bench: Bench) -> None:
    up(bench, lambda: Thing("a", size=1, opts=Opts(parent=Group("g"))))
    assert state(bench, "a")["urn"] == "urn:pulumi:dev::proj::toy:index:Group$toy:index:Thing::a"


# -- providers ---------------------------------------------------------------------------------------------------------
class Toy(pulumi.ProviderResource):
    def __init__(self, name: str, **props: Any) -> None:
        super().__init__("toy", name, props, Opts(version="1.2.3"))


def test_an_explicit_providers_version_is_part_of_its_configuration(bench: Bench) -> None:
    up(bench, lambda: Thing("a", size=1, opts=Opts(provider=Toy("west", region="us-west-2"))))
    configured = next(c for c in bench.calls() if c["method"] == "Configure")
    assert configured["args"] == {"region": "us-west-2", "version": "1.2.3"}


@pytest.mark.slow
def test_a_resource_that_gets_another_provider_is_replaced(bench: Bench) -> None:
    up(bench, lambda: Thing("a", size=1))
    result = up(bench, lambda: Thing("a", size=1, opts=Opts(provider=Toy("west", region="us-west-2"))))
    assert changes(result)["replace"] == 1
    assert list(bench.things()) == ["thing-a-2"]


@pytest.mark.slow
def test_a_provider_whose_configuration_is_not_known_yet_is_not_asked(bench: Bench) -> None:
    def program() -> None:
        a = Thing("a", size=1)
        Thing("b", size=2, opts=Opts(provider=Toy("later", region=a.address)))

    bench.program = program
    bench.stack.preview()
    assert [c["name"] for c in bench.calls() if c["method"] == "Check"] == ["a"]
    bench.stack.up(show_secrets=False)
    assert len(bench.things()) == 2


def test_a_package_that_nobody_attached_is_named(bench: Bench) -> None:
    class Other(pulumi.CustomResource):
        def __init__(self) -> None:
            super().__init__("other:index:Thing", "x", {})

    with pytest.raises(auto.CommandError, match="no provider is attached for package 'other'"):
        up(bench, Other)
    assert not bench.state()["locks"]


# -- secrets -----------------------------------------------------------------------------------------------------------
def test_what_went_in_as_a_secret_lies_nowhere_in_the_clear(bench: Bench) -> None:
    """The toy provider reads back what it was given without the marks."""

    def program() -> None:
        Thing("a", note=pulumi.Output.secret("s3cret-input"), tags={"deep": [pulumi.Output.secret("s3cret-deep")]})

    bench.control(partial_create={"a": "not ready"})
    with pytest.raises(auto.CommandError):
        up(bench, program)
    bench.control()
    up(bench, program)
    bench.stack.refresh(show_secrets=False)
    up(bench, program)
    files = [p for p in (bench.home / "state").rglob("*") if p.is_file()]
    assert files
    for path in files:
        assert "s3cret" not in path.read_text(), path


def test_an_imported_secret_is_a_secret(bench: Bench) -> None:
    bench.drift(lambda things: things.update({"thing-a-9": {"note": "s3cret-input", "size": 1.0}}))

    def program() -> None:
        Thing("a", note=pulumi.Output.secret("s3cret-input"), size=1, opts=Opts(import_="thing-a-9"))

    assert changes(up(bench, program)) == {"create": 1, "import": 1}
    assert changes(up(bench, program)) == {"same": 2}
    assert state(bench, "a")["importID"] == "thing-a-9"
    for path in (p for p in (bench.home / "state").rglob("*") if p.is_file()):
        assert "s3cret" not in path.read_text(), path


@pytest.mark.slow
def test_an_unchanged_secret_keeps_its_ciphertext(bench: Bench) -> None:
    def program() -> None:
        Thing("a", note=pulumi.Output.secret("s3cret-input"))

    up(bench, program)
    first = state(bench, "a")
    up(bench, program)
    assert state(bench, "a")["inputs"] == first["inputs"]
    assert state(bench, "a")["outputs"] == first["outputs"]


# -- reading, hooks, transforms ----------------------------------------------------------------------------------------
@pytest.mark.slow
def test_what_is_only_read_is_never_deleted(bench: Bench) -> None:
    bench.drift(lambda things: things.update({"thing-x-9": {"size": 4.0}}))

    class Known(pulumi.CustomResource):
        size: pulumi.Output[int]

        def __init__(self) -> None:
            super().__init__("toy:index:Thing", "known", {"size": None, "address": None}, Opts(id="thing-x-9"))

    def program() -> None:
        pulumi.export("size", Known().size)

    assert up(bench, program).outputs["size"].value == 4
    assert state(bench, "known")["external"] is True
    bench.stack.destroy(show_secrets=False)
    assert list(bench.things()) == ["thing-x-9"]


def test_hooks_are_called_around_a_create_and_a_failing_one_prevents_it(bench: Bench) -> None:
    seen: list[str] = []

    def program(refuse: bool) -> Callable[[], None]:
        def before(args: pulumi.ResourceHookArgs) -> None:
            seen.append(f"before {args.name}")
            if refuse:
                raise ValueError("not today")

        def run() -> None:
            first = pulumi.ResourceHook("before", before)
            last = pulumi.ResourceHook("after", lambda args: seen.append(f"after {args.name} {args.id}"))
            hooks = pulumi.ResourceHookBinding(before_create=[first], after_create=[last])
            Thing("a", size=1, opts=Opts(hooks=hooks))

        return run

    with pytest.raises(auto.CommandError, match="not today"):
        up(bench, program(True))
    assert not bench.things()
    up(bench, program(False))
    assert seen == ["before a", "before a", "after a thing-a-1"]


def test_a_components_transform_reaches_its_children(bench: Bench) -> None:
    def program() -> None:
        def label(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
            if args.type_ != "toy:index:Thing":
                return None
            opts = Opts.merge(args.opts, Opts(retain_on_delete=True))
            return pulumi.ResourceTransformResult(props={**args.props, "label": "x"}, opts=opts)

        group = pulumi.ComponentResource("toy:index:Group", "g", None, Opts(transforms=[label]))
        Thing("in", size=1, opts=Opts(parent=group))
        Thing("out", size=1)

    up(bench, program)
    assert state(bench, "in")["inputs"] == {"size": 1, "label": "x"}
    assert state(bench, "in")["retainOnDelete"] is True
    assert state(bench, "out")["inputs"] == {"size": 1}


@pytest.mark.slow
def test_a_function_may_wait_for_a_resource(bench: Bench) -> None:
    def program() -> None:
        a = Thing("a", size=1)
        found = pulumi.runtime.invoke_output("toy:index:lookup", {"key": a.address})
        pulumi.export("found", found.apply(lambda f: f["value"]))

    assert up(bench, program).outputs["found"].value == "found 10.0.0.24"


# -- failures ----------------------------------------------------------------------------------------------------------
def test_going_on_leaves_out_only_what_needs_the_failed_one(bench: Bench) -> None:
    def program() -> None:
        bad = Thing("bad", size=1)
        needy = Thing("needy", peer=bad.address)
        Thing("needier", size=1, opts=Opts(depends_on=[needy]))
        Thing("fine", size=1)

    bench.control(fail_create={"bad": "boom"})
    with pytest.raises(auto.CommandError, match="boom"):
        up(bench, program, continue_on_error=True)
    assert list(bench.things()) == ["thing-fine-1"]
    bench.control()
    up(bench, program)
    assert len(bench.things()) == 4


def test_what_failed_to_change_keeps_what_it_still_needs(bench: Bench) -> None:
    def program() -> None:
        a = Thing("a", size=1)
        b = Thing("b", peer=a.address)
        Thing("c", peer=b.address)

    def without_a() -> None:
        b = Thing("b", peer="elsewhere")
        Thing("c", peer=b.address)

    up(bench, program)
    bench.control(fail_update={"b": "conflict"})
    with pytest.raises(auto.CommandError, match="conflict"):
        up(bench, without_a, continue_on_error=True)
    assert sorted(bench.things()) == ["thing-a-1", "thing-b-1", "thing-c-1"]
    assert topological(bench.checkpoint()["resources"])
    bench.control()
    up(bench, without_a)
    assert sorted(bench.things()) == ["thing-b-1", "thing-c-1"]


@pytest.mark.slow
def test_a_destroy_that_goes_on_keeps_what_the_undeletable_needs(bench: Bench) -> None:
    def program() -> None:
        a = Thing("a", size=1)
        Thing("b", peer=a.address)
        Thing("free", size=1)

    up(bench, program)
    bench.control(fail_delete={"b": "in use"})
    with pytest.raises(auto.CommandError, match="in use"):
        bench.stack.destroy(show_secrets=False, continue_on_error=True)
    assert sorted(bench.things()) == ["thing-a-1", "thing-b-1"]


def test_being_ended_is_like_an_interrupt(bench: Bench) -> None:
    def program() -> None:
        a = Thing("a", size=1)
        Thing("b", peer=a.address)

    bench.control(delay={"a": 1.5})
    waiter = threading.Thread(target=lambda: (bench.wait_for_create("a"), _end(bench)), daemon=True)
    waiter.start()
    with pytest.raises(auto.CommandError):
        up(bench, program)
    waiter.join()
    assert state(bench, "a")["id"] == "thing-a-1"
    assert not bench.checkpoint().get("pending_operations")
    assert not bench.state()["locks"]


def _end(bench: Bench) -> None:
    import os

    os.kill(bench.command.pid, signal.SIGTERM)


@pytest.mark.slow
def test_a_half_made_update_is_told_and_repaired(bench: Bench) -> None:
    """A pending update of a killed run does not come back: the next update settles it."""
    up(bench, lambda: Thing("a", size=1))
    bench.control(delay={"a": 2})
    killer = threading.Thread(target=lambda: (_wait_for(bench, "Update"), bench.kill(bench.command.pid)), daemon=True)
    killer.start()
    with pytest.raises(auto.CommandError):
        up(bench, lambda: Thing("a", size=2))
    killer.join()
    assert [p["type"] for p in bench.checkpoint()["pending_operations"]] == ["updating"]
    bench.control()
    bench.stack.cancel()
    up(bench, lambda: Thing("a", size=2))
    assert not bench.checkpoint().get("pending_operations")
    assert bench.things() == {"thing-a-1": {"size": 2.0}}


def _wait_for(bench: Bench, method: str) -> None:
    import time

    end = time.monotonic() + 30
    while time.monotonic() < end and not any(c["method"] == method for c in bench.calls()):
        time.sleep(0.02)
    time.sleep(0.1)


# -- events and order --------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_one_at_a_time_means_one_at_a_time(bench: Bench) -> None:
    def program() -> None:
        for name in "abcd":
            Thing(name, size=1)

    bench.control(delay={"a": 0.2, "b": 0.2, "c": 0.2, "d": 0.2})
    up(bench, program, parallel=1)
    order = [c["method"] for c in bench.calls() if c["method"] in {"Create", "Created"}]
    assert order == ["Create", "Created"] * 4


@pytest.mark.slow
def test_events_can_go_to_a_file(bench: Bench, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    bench.program = lambda: Thing("a", size=1) and None
    bench.stack.up(show_secrets=False)
    bench.stack._run_pulumi_cmd_sync(["destroy", "--yes", "--skip-preview", "--event-log", str(log)])
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [e["sequence"] for e in events] == list(range(len(events)))
    assert "preludeEvent" in events[0]
    assert "cancelEvent" in events[-1]
