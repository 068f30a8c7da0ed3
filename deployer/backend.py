"""In which backend the stacks lie: noted in the ledger, and another one refused until it holds the same stacks.

In another backend every stack looks as if it had never been made: `up` would make everything a second time, and `reap`
would take what runs for what was left.
"""

from __future__ import annotations

import re

from deployer.checkpoint import stack_outputs
from deployer.crew import Crew
from deployer.engine_home import BACKEND_VARIABLE, EngineHome
from deployer.errors import RealmError
from deployer.ledger import NOTHING_THERE, Row
from deployer.locks import seconds_of

_KEY = "backend"
DEFAULT = "default"
"""How the folder of the deployment's own is noted: it moves with the workspace."""

_GRAIN_S = 5.0
"""A change is noted here a moment before or after the engine saves it."""

_TELLING = ("vm_id", "public_ip")
"""Outputs that no other stack has."""


def name_of(home: EngineHome) -> str:
    """The backend as it is noted: `default`, or its URL without a user's name and password. Pure."""
    if home.backend_url == home.own_url:
        return DEFAULT
    return re.sub(r"(?<=://)[^/@]*@", "", home.backend_url)


def check_backend(crew: Crew) -> None:
    """Make sure that the stacks of what is deployed lie where the engines are going to look; note where that is.

    A backend that was moved shows itself: it holds the very machines and addresses that the ledger knows, in a state no
    older than the last change. The copy that was left behind does not, after the first one.

    Raises:
        RealmError: they lie elsewhere.
        CloudError: this backend can't be asked.
    """
    ledger, here = crew.deployment.ledger, name_of(crew.deployment.home)
    noted = ledger.meta(_KEY)
    if noted == here:
        return
    if noted is not None:  # else of an older fedspan, or nothing was made yet
        there = [row for row in ledger.participants() if row.cloud and row.phase not in NOTHING_THERE]
        missing = [row.name for row in there if not _holds(crew, row)]
        if missing:
            raise elsewhere(noted, here, missing, crew.verb)
    note_backend(crew)


def note_backend(crew: Crew) -> None:
    """From now on the stacks lie where the engines look now."""
    crew.deployment.ledger.set_meta(_KEY, name_of(crew.deployment.home))


def _holds(crew: Crew, row: Row) -> bool:
    state = crew.engine_named(row.name).state() or {}
    (outputs,) = stack_outputs(state) or [{}]
    changed = max(
        (e.at for e in crew.deployment.ledger.events(row.name) if e.resource and e.phase != "reaped"), default=0
    )
    saved = seconds_of(str((state.get("manifest") or {}).get("time") or ""))
    return saved + _GRAIN_S >= changed and all(outputs.get(name) == row.outputs.get(name) for name in _TELLING)


def elsewhere(noted: str, here: str, missing: list[str], verb: str) -> RealmError:
    """The error for a command that would look into another backend than the one before. Pure."""
    before = "in .fedspan/stacks/state (the default)" if noted == DEFAULT else f"in {noted}"
    now = f"{BACKEND_VARIABLE} is not set" if here == DEFAULT else f"{BACKEND_VARIABLE} names {here}"
    variable = f"unset {BACKEND_VARIABLE};" if noted == DEFAULT else f"{BACKEND_VARIABLE}={noted}"
    return RealmError(
        "the stacks of this federation lie in another backend",
        why=f"the state of {', '.join(missing)} is {before}; now {now}, and it is not there: all would be made twice",
        next_step=f"{variable} fedspan {verb}. To move the state, copy it first (docs/planning.md tells how)",
    )
