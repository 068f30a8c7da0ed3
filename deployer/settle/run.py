"""Settling: after an operation that did not end, bring cloud and state into agreement before the next one."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

from deployer.errors import CloudError, RefusedError
from deployer.settle.decide import Decision, decide
from deployer.settle.model import Deployment, Found, OnStep, Settled, Whose, World
from deployer.settle.state import edited, pending

SECOND_LOOK_S = 2.0
"""How long a create that was under way when its engine died may still take to show in the cloud's lists."""

CALM_LIMIT_S = 900.0
"""How long a cloud may go on with an interrupted operation before settling gives up."""

CALM_POLL_S = 2.0

_ROUNDS = 4


def find_all(world: World, whose: Whose) -> list[Found]:
    """Everything that the cloud holds of this participant now."""
    return world.find(whose)


def delete_all(world: World, found: Iterable[Found], on_step: OnStep | None = None) -> None:
    """Delete exactly these, in an order that works, and wait until they are gone."""
    world.delete(list(found), on_step or _silent)


def settle(
    world: World,
    whose: Whose,
    deployment: Deployment | None,
    *,
    failed: Iterable[str] = (),
    since: datetime | None = None,
    on_step: OnStep | None = None,
) -> Settled:
    """Find what an unfinished operation left, delete it, and clear the pending operations from a copy of the state.

    Args:
        world: the participant's cloud.
        whose: the participant.
        deployment: the exported state, None when the stack was never made.
        failed: URNs of resources whose create failed in the last operation.
        since: when the first operation began that did not end cleanly.
        on_step: is told each step.

    Raises:
        RefusedError: a state volume exists that the state does not know and no interrupted operation explains, or a
            fixed name is taken by somebody else. Nothing was touched then.
        CloudError: the cloud refused or failed; settling again is safe.
    """
    tell = on_step or _silent
    failed = tuple(failed)
    actions: list[str] = []
    world.check(whose)
    first = _look(world, whose, deployment, failed, since)
    if pending(deployment) and not first.delete:
        time.sleep(SECOND_LOOK_S)
        first = _look(world, whose, deployment, failed, since)
    decision = first
    for _ in range(_ROUNDS):
        _refuse_doubt(decision, whose)
        if not decision.delete:
            break
        actions += [f"deleted {thing.title}, left by an interrupted operation" for thing in decision.delete]
        world.delete(list(decision.delete), tell)
        decision = _look(world, whose, deployment, failed, since)
    if pending(deployment):
        _wait_until_calm(world, whose, tell)
    state, held = edited(deployment, first.drop)
    actions += [f"cleared the interrupted operation: {text}" for text in first.interrupted]
    return Settled(
        deployment=state,
        changed=bool(first.drop or pending(deployment)),
        actions=tuple(actions),
        refresh=first.refresh or bool(held),
    )


def _look(
    world: World, whose: Whose, deployment: Deployment | None, failed: tuple[str, ...], since: datetime | None
) -> Decision:
    return decide(world.find(whose), deployment, participant=whose.participant, failed=failed, since=since)


def _wait_until_calm(world: World, whose: Whose, tell: OnStep) -> None:
    """A cloud goes on with what it was asked for although nobody waits any more, and refuses changes meanwhile."""
    until = time.monotonic() + CALM_LIMIT_S
    while busy := [thing for thing in world.find(whose) if thing.busy]:
        if time.monotonic() > until:
            raise CloudError(
                f"{busy[0].title} does not come to rest",
                participant=whose.participant,
                why=f"the cloud has been at work on it for {CALM_LIMIT_S:.0f} s",
                next_step="fedspan up tries again",
            )
        tell(f"waiting for {busy[0].title}, on which the cloud is still at work")
        time.sleep(CALM_POLL_S)


def _refuse_doubt(decision: Decision, whose: Whose) -> None:
    if not decision.doubtful:
        return
    listed = ", ".join(thing.title for thing in decision.doubtful)
    raise RefusedError(
        "the stack's state does not know a volume that may hold this participant's data",
        participant=whose.participant,
        why=f"{listed} is there, and no interrupted operation explains it: was the state lost or replaced?",
        next_step="bring the stack's state back (.fedspan/stacks, or the backend) from a backup. Without one: fedspan "
        "reap shows everything of it and deletes it, the volume too, then fedspan up",
    )


def _silent(_: str) -> None:
    return None
