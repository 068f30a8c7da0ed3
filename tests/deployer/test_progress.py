"""What the screens show: phases with their time, the slowest step, the logs; in lines, in JSON, in a table."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from deployer.engine_events import Step
from deployer.live import JsonEvents, Lines, LiveTable
from deployer.timing import Timing

VM = Step("urn:1::vm", "aws:ec2/instance:Instance", "site-1-vm", "create")
KEY = Step("urn:1::key", "aws:ec2/keyPair:KeyPair", "site-1-key", "create")


class Clock:
    """Time as a test wants it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def work(screen: Lines | JsonEvents | LiveTable, clock: Clock, logs: Path) -> None:
    """A short `up` of one site: 35 s for the machine, 6 s for the push."""
    screen.timing = Timing(clock)
    screen.log(str(logs))
    screen.phase("site-1", "making")
    screen.resource("site-1", "start", KEY)
    screen.resource("site-1", "done", KEY)
    screen.resource("site-1", "start", VM)
    clock.now += 35
    screen.resource("site-1", "done", VM)
    screen.phase("site-1", "pushing", "runtime")
    clock.now += 6


def test_plain_lines_tell_how_long_a_step_took_and_end_with_the_slowest_and_the_logs(tmp_path: Path) -> None:
    told: list[str] = []
    lines, clock = Lines(told.append), Clock()
    work(lines, clock, tmp_path)
    lines.phase("site-1", "registered")
    lines.end()
    assert [line.split("s  ", 1)[1] for line in told] == [
        "site-1: making",
        "site-1: ec2.KeyPair site-1-key created",
        "site-1: ec2.Instance site-1-vm created after 35 s",
        "site-1: pushing, runtime",
        "site-1: registered",
        "slowest: site-1 ec2.Instance site-1-vm 35 s",
        f"logs: {tmp_path}",
    ]


def test_json_events_end_with_the_phases_of_everybody(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    screen, clock = JsonEvents(), Clock()
    work(screen, clock, tmp_path)
    screen.phase("site-1", "registered")
    screen.end()
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1] == {
        "event": "timing",
        "phases": {"site-1": {"making": 35.0, "pushing": 6.0}},
        "slowest": {"participant": "site-1", "what": "ec2.Instance site-1-vm", "seconds": 35.0, "running": False},
        "logs": str(tmp_path),
        "elapsed": 41.0,
    }
    assert next(event["seconds"] for event in events if event.get("state") == "done" and event["name"] == "site-1-vm")


def rendered(table: LiveTable) -> list[str]:
    from rich.console import Console

    console = Console(width=110, record=True, file=io.StringIO())
    console.print(table.render())
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_table_shows_phase_and_elapsed_time_and_below_what_is_slow_now(tmp_path: Path) -> None:
    from rich.console import Console

    table, clock = LiveTable(Console(), ["site-1", "site-2"]), Clock()
    work(table, clock, tmp_path)
    table.resource("site-2", "start", Step("urn:2::vm", VM.type, "site-2-vm", "create"))
    clock.now += 60
    shown = rendered(table)
    assert shown[0].split() == ["participant", "phase", "for", "resource", "done", "elapsed"]
    assert shown[1].split() == ["site-1", "pushing", "66", "s", "runtime", "2", "101", "s"]
    assert shown[3] == "slowest: site-1 pushing 66 s so far"
    table.phase("site-1", "registered")
    clock.now += 60
    shown = rendered(table)
    assert shown[1].split() == ["site-1", "registered", "2", "101", "s"], "a clock stands still at the end"
    assert shown[3] == "slowest: site-2 ec2.Instance site-2-vm 120 s so far"
    assert shown[4] == f"logs: {tmp_path}"[:110]


def test_phases_that_come_twice_are_added_up() -> None:
    clock = Clock()
    timing = Timing(clock)
    for phase, seconds in (("making", 5), ("settling", 2), ("making", 7)):
        timing.phase("site-1", phase)
        clock.now += seconds
    timing.phase("site-1", "failed")
    assert timing.phases() == {"site-1": {"making": 12, "settling": 2}}
    assert timing.seconds("site-1") == 14
