"""The faults of the campaign, and one run with one of them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable

from campaign import Bench, offline
from campaign_page import Seen
from e2e_world import Result

from deployer.sandbox.provider_resource import ProviderError

NO_LOGIN = 9
"""The exit code of an `up` that has made everything and finds no machine to log in to."""


# -- the faults ---------------------------------------------------------------------------------------------------
def refused(bench: Bench, when: str) -> None:
    """The cloud refuses."""
    if when == "before":
        bench.struck = True
        raise ProviderError("api error InternalError: An internal error has occurred")


def lost(bench: Bench, when: str) -> None:
    """The cloud does it, and the answer is lost with the connection."""
    if when == "after":
        bench.struck = True
        raise ProviderError("error reading from server: EOF")


def engine_killed(bench: Bench, when: str) -> None:
    """The cloud has done it; the engine is killed before it hears of it."""
    if when == "after":
        bench.struck = True
        bench.kill_engines()


def command_killed(bench: Bench, when: str) -> None:
    """The cloud has done it; fedspan is killed, the engine goes on alone and finds its program gone."""
    if when == "after":
        bench.struck = True
        bench.kill_command()


def both_killed(bench: Bench, when: str) -> None:
    """The cloud has done it; fedspan and the engine are killed (the machine lost its power)."""
    if when == "after":
        bench.struck = True
        bench.kill_command()
        bench.kill_engines()


def interrupted(bench: Bench, when: str) -> None:
    """Ctrl-C while the cloud does it."""
    if when == "before":
        bench.struck = True
        os.kill(bench.command_pid, signal.SIGINT)


def network_gone(bench: Bench, when: str) -> None:
    """The network goes away: neither this call nor any later one of this command comes through."""
    bench.struck = bench.offline = True
    offline()


FAULTS: dict[str, Callable[[Bench, str], None]] = {
    "refused": refused,
    "answer lost": lost,
    "engine killed": engine_killed,
    "fedspan killed": command_killed,
    "both killed": both_killed,
    "Ctrl-C": interrupted,
    "network gone": network_gone,
}


# -- one run ------------------------------------------------------------------------------------------------------
def first_error(result: Result) -> str:
    """What a user reads first: the error's first line; or how the command ended."""
    lines = [line for line in result.err.splitlines() if line.startswith("error:")]
    if lines:
        return lines[0].removeprefix("error: ")
    return "(killed)" if result.code < 0 else result.err.strip().splitlines()[-1] if result.err.strip() else "nothing"


def check_one_of_each(bench: Bench) -> None:
    """Nothing was made twice."""
    counted = Counter(f"{item.kind} {item.name}" for item in bench.inventory())
    assert [name for name, count in counted.items() if count > 1] == []


def check_nothing_left(bench: Bench) -> None:
    assert [f"{item.kind} {item.name} {item.id}" for item in bench.inventory()] == []
    locks = [path for path in (bench.fed / ".fedspan" / "stacks" / "state").rglob("*.json") if "locks" in path.parts]
    assert locks == []


def run_with_fault(bench: Bench, verb: str, name: str, fault: str, then: str, *, cycle: str = "up") -> Seen:
    """One run: `cycle` with the fault at this call, then `up` and `down`, or `down` at once; nothing may be left.

    Args:
        verb, name: the call; see `Call`.
        fault: a key of FAULTS.
        then: `up` or `down`.
        cycle: `up`, or `down` for a call of a deletion (an `up` goes before).
    """
    if cycle == "down":
        assert bench.run("up", "--yes").code == NO_LOGIN
    bench.strike_at, bench.strike, bench.struck = (verb, name), FAULTS[fault], False
    bench.calls.clear()
    result = bench.run(cycle, "--yes")
    assert bench.struck, f"{verb} {name} was not called: {bench.calls}\n{result.out}\n{result.err}"
    assert result.code != 0 or fault == "Ctrl-C", (result.out, result.err)
    assert "Traceback" not in result.err
    bench.strike_at = None
    saw = first_error(result)
    if fault == "fedspan killed":
        bench.wait_for_engines()
    if then == "up":
        again = bench.run("up", "--yes")
        assert again.code == NO_LOGIN, (again.out, again.err)
        check_one_of_each(bench)
        resources = len(bench.inventory())
        assert resources >= 10
    last = bench.run("down", "--yes")
    assert last.code == 0, (last.out, last.err)
    check_nothing_left(bench)
    return Seen(f"{verb} {name}", fault, saw, then, len(bench.inventory()))
