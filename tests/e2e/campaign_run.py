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
CODES = {"Ctrl-C": 130, "fedspan killed": -signal.SIGKILL, "both killed": -signal.SIGKILL}
"""How the command ends after a fault; what is not named here ends with some error's code."""

CREATES = {
    "aws": (
        "site-1-vpc",
        "site-1-gateway",
        "site-1-subnet",
        "site-1-routes",
        "site-1-firewall",
        "site-1-subnet-routes",
        "site-1-default-route",
        "site-1-interface",
        "site-1-address",
        "site-1-key",
        "site-1-ssh-198-51-100-10-32",
        "site-1-state",
        "site-1-egress",
        "site-1-vm",
        "site-1-state-attachment",
    ),
    "azure": (
        "site-1-rg",
        "site-1-vnet",
        "site-1-firewall",
        "site-1-address",
        "site-1-subnet",
        "site-1-interface",
        "site-1-state",
        "site-1-ssh-1314",
        "site-1-vm",
        "site-1-ingress-deny",
    ),
}
"""What an `up` of one site makes, by cloud: logical names, with a stable order."""


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


def check_clean_run(bench: Bench, creates: tuple[str, ...]) -> None:
    """`up` without a fault asks for exactly these, and `down` leaves nothing: the faults strike at all there is."""
    bench.calls.clear()
    assert bench.run("up", "--yes").code == NO_LOGIN
    assert {name for verb, name in bench.calls if verb == "create"} == set(creates)
    assert bench.run("down", "--yes").code == 0
    check_nothing_left(bench)


def run_with_fault(
    bench: Bench, rows: list[Seen], verb: str, name: str, fault: str, then: str, *, cycle: str = "up", step: str = ""
) -> None:
    """One run: `cycle` with the fault at this call, then `up` and `down`, or `down` at once; nothing may be left.

    Args:
        rows: gets the run's row, whether it passes or not.
        verb, name: the call; see `Call`.
        fault: a key of FAULTS.
        then: `up` or `down`.
        cycle: `up`, or `down` for a call of a deletion (an `up` goes before).
        step: what the row says instead of the call.
    """
    row = Seen(step or f"{verb} {name}", fault, then)
    rows.append(row)
    if cycle == "down":
        assert bench.run("up", "--yes").code == NO_LOGIN
    bench.strike_at, bench.strike, bench.struck = (verb, name), FAULTS[fault], False
    bench.calls.clear()
    try:
        result = bench.run(cycle, "--yes")
    finally:
        bench.strike_at = None
    row.saw = first_error(result)
    assert bench.struck, f"{verb} {name} was not called: {bench.calls}\n{result.out}\n{result.err}"
    assert result.code == CODES[fault] if fault in CODES else result.code != 0, (result.code, result.out, result.err)
    assert "Traceback" not in result.err
    if fault == "fedspan killed":
        bench.wait_for_engines()
    if then == "up":
        again = bench.run("up", "--yes")
        assert again.code == NO_LOGIN, (again.out, again.err)
        check_one_of_each(bench)
        assert len(bench.inventory()) >= 10
    last = bench.run("down", "--yes")
    row.left = len(bench.inventory())
    assert last.code == 0, (last.out, last.err)
    check_nothing_left(bench)
    row.passed = True
