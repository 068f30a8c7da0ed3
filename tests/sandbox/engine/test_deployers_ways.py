"""What the deployer asks of the engine and no record shows. Not held against the real engine: docs/engine.md says so.

With `--pulumi-root` the same tests ask the real command.
"""

from __future__ import annotations

from typing import Any

import pytest
from pulumi import automation as auto

from .bench import Bench, Thing

pytestmark = pytest.mark.slow


def calls(bench: Bench, since: int) -> list[str]:
    """`Create a` and so on, of what was asked for real."""
    return [
        f"{call['method']} {call['name']}"
        for call in bench.calls()[since:]
        if call["method"] in ("Create", "Update", "Delete") and not call.get("preview")
    ]


def participant(bench: Bench, stage: str, zone: str = "z1") -> None:
    """An address that stays; beside it, in a zone, a subnet's interface; with `full` a disk and a machine on it."""

    def program() -> None:
        subnet = Thing("subnet", zone=zone)
        interface = Thing("interface", zone=subnet.address)
        Thing("address", note=interface.address)
        if stage == "full":
            disk = Thing("disk", zone=zone)
            Thing("machine", zone=zone, note=disk.address)

    bench.program = program


def up(bench: Bench, **options: Any) -> auto.UpResult:
    return bench.stack.up(show_secrets=False, **options)


def names(bench: Bench) -> list[str]:
    return sorted(identity.split("-")[1] for identity in bench.things())


def test_going_back_to_the_smaller_program_takes_away_the_machine_and_nothing_else(bench: Bench) -> None:
    participant(bench, "full")
    up(bench)
    before = len(bench.calls())
    participant(bench, "address")
    up(bench)
    assert calls(bench, before) == ["Delete machine", "Delete disk"]
    assert names(bench) == ["address", "interface", "subnet"]


def test_a_machine_that_was_never_finished_goes_with_the_smaller_program(bench: Bench) -> None:
    participant(bench, "full")
    bench.control(partial_create={"machine": "allocation failed"})
    with pytest.raises(auto.CommandError):
        up(bench)
    assert "machine" in names(bench)
    bench.control()
    participant(bench, "address")
    up(bench)
    assert names(bench) == ["address", "interface", "subnet"]
    assert not [entry for entry in bench.checkpoint()["resources"] if entry.get("initErrors")]


def test_a_move_to_another_zone_makes_the_new_network_first_and_keeps_the_address(bench: Bench) -> None:
    participant(bench, "address")
    up(bench)
    address = next(identity for identity in bench.things() if "address" in identity)
    before = len(bench.calls())
    participant(bench, "full", zone="z2")
    up(bench)
    done = calls(bench, before)
    assert done.index("Create subnet") < done.index("Create interface") < done.index("Update address")
    assert done.index("Update address") < done.index("Delete interface") < done.index("Delete subnet")
    assert address in bench.things()
    assert names(bench) == ["address", "disk", "interface", "machine", "subnet"]


def test_an_up_by_a_saved_plan_may_look_at_the_cloud_first(bench: Bench) -> None:
    participant(bench, "address")
    up(bench)
    participant(bench, "full")
    plan = str(bench.home / "plan.json")
    bench.stack.preview(plan=plan)
    up(bench, plan=plan, refresh=True)
    assert names(bench) == ["address", "disk", "interface", "machine", "subnet"]


def test_a_destroy_that_looks_first_ends_well_with_things_that_are_gone_already(bench: Bench) -> None:
    participant(bench, "full")
    up(bench)
    bench.drift(lambda things: [things.pop(key) for key in list(things) if "machine" in key or "disk" in key])
    bench.stack.destroy(show_secrets=False, refresh=True, remove=True)
    assert bench.things() == {}


def test_a_stack_that_was_interrupted_in_its_move_is_taken_down_whole(bench: Bench) -> None:
    participant(bench, "address")
    up(bench)
    participant(bench, "full", zone="z2")
    bench.control(fail_delete={"interface": "still in use"})
    with pytest.raises(auto.CommandError):
        up(bench)
    bench.control()
    before = len(bench.calls())
    bench.stack.destroy(show_secrets=False)
    deleted = calls(bench, before)
    assert sorted(set(deleted)) == [
        "Delete address", "Delete disk", "Delete interface", "Delete machine", "Delete subnet"
    ]  # fmt: skip
    assert bench.things() == {}


def test_a_stack_that_was_never_selected_is_read_and_one_that_is_not_there_is_told(bench: Bench) -> None:
    participant(bench, "address")
    up(bench)
    known = bench.stack.workspace
    elsewhere = auto.LocalWorkspace(
        work_dir=known.work_dir,
        pulumi_home=str(bench.home / "another home"),  # where the command keeps which stack is selected
        pulumi_command=bench.command,
        env_vars=known.env_vars,
    )
    assert len((elsewhere.export_stack("dev").deployment or {})["resources"]) > 1
    with pytest.raises(auto.StackNotFoundError):
        elsewhere.export_stack("not-there")
    elsewhere.create_stack("another")
    assert not (elsewhere.export_stack("another").deployment or {}).get("resources")
    elsewhere.remove_stack("another")
