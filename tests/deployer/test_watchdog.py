"""A step that takes too long ends its engine: asked once to save, then told to stop; a step in time ends nothing."""

from __future__ import annotations

import threading

import pytest

from deployer.engine_events import Step
from deployer.errors import CapacityError, CloudError
from deployer.failures import too_slow
from deployer.watchdog import Watchdog

VM = Step("urn:vm", "aws:ec2/instance:Instance", "site-1-vm", "create")
VPC = Step("urn:vpc", "aws:ec2/vpc:Vpc", "site-1-vpc", "create")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSPAN_MACHINE_DEADLINE", "0.3")
    monkeypatch.setenv("FEDSPAN_STEP_DEADLINE", "3600")
    monkeypatch.setenv("FEDSPAN_ENGINE_GRACE", "0.1")


class Engine:
    """Counts its interrupts; ends after so many."""

    def __init__(self, ends_after: int) -> None:
        self.ends_after, self.count = ends_after, 0
        self.ended = threading.Event()

    def interrupt(self) -> None:
        self.count += 1
        if self.count >= self.ends_after:
            self.ended.set()


@pytest.mark.parametrize("patience", [1, 2])
def test_an_overdue_machine_ends_its_engine(patience: int) -> None:
    engine = Engine(patience)
    with Watchdog(engine.interrupt) as dog:
        dog.saw("start", VPC)
        dog.saw("start", VM)
        assert engine.ended.wait(60)
    assert engine.count == patience
    assert dog.overdue == VM


def test_a_step_that_ends_while_the_engine_is_told_keeps_the_verdict() -> None:
    engine = Engine(1)
    dog = Watchdog(engine.interrupt)
    look = dog._late

    def late_once() -> Step | None:
        found = look()
        if found is not None:
            dog.saw("done", found)
        return found

    dog._late = late_once  # type: ignore[method-assign]
    with dog:
        dog.saw("start", VM)
        assert engine.ended.wait(60)
    assert dog.overdue == VM


def test_what_ends_in_time_ends_nothing() -> None:
    engine = Engine(1)
    with Watchdog(engine.interrupt) as dog:
        dog.saw("start", VM)
        dog.saw("done", VM)
        assert not engine.ended.wait(1)
    assert dog.overdue is None


def test_a_machine_that_never_comes_counts_as_no_room_and_other_things_as_an_outage() -> None:
    machine, network = too_slow("site-1", VM, 900, log=None), too_slow("site-1", VPC, 1800, log=None)
    assert (type(machine), machine.kind) == (CapacityError, "capacity")
    assert (type(network), network.kind) == (CloudError, "outage")
    assert "not made it within 900 s" in str(machine)
