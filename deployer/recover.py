"""A crash leaves nothing behind: what a killed engine or a lost connection left is settled before anything else.

Three things can be left: a lock of a dead process, operations that were begun and never ended ("pending"), and things
that a cloud made while nobody listened any more (no trace in the state at all). The last two are found by tags and by
resource IDs, and deleted or forgotten, by `deployer.settle`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

from deployer.checkpoint import cloud_resources, pending_operations
from deployer.crew import Crew
from deployer.errors import CloudError, FedspanError
from deployer.ledger import NOTHING_THERE, Row
from deployer.locks import wait_free
from deployer.settings import setting


class Stood(NamedTuple):
    """A stack that nothing is unsettled about.

    Attributes:
        told: what was done, in words.
        refresh: the next `up` has to look at the cloud first.
        state: its checkpoint; None without a stack.
    """

    told: list[str]
    refresh: bool
    state: dict[str, Any] | None


def free_stack(crew: Crew, name: str) -> Iterator[str]:
    """Wait for an engine that is still saving; take the locks of dead ones away. Yields what was done.

    Raises:
        BusyError: somebody alive holds the stack.
    """
    home = crew.deployment.home
    dead = wait_free(
        home.lock_dir,
        home.project,
        name,
        setting("ORPHAN_ENGINE_WAIT"),
        crew.interrupts.wait,
        lambda text: crew.screen.line(f"{name}: {text}"),
    )
    if dead:
        crew.engine_named(name).unlock()
        yield "took away the lock of an engine that was killed"


def settle_stack(
    crew: Crew, name: str, cloud: str, where: Any, access: Any, failed: Iterable[str] = (), *, goes_on: bool = False
) -> Stood:
    """Settle everything of one stack that did not end well.

    `goes_on`: what stands is going to be built on. Then a state that has lost it is settled too.

    Raises:
        BusyError: somebody alive holds the stack.
        CloudError: the cloud could not be asked, or something found could not be settled.
        RefusedError: the state has lost a volume that may hold data.
    """
    told = list(free_stack(crew, name))
    engine = crew.engine_named(name)
    since = crew.deployment.ledger.unclean_since(name)
    state = engine.state()
    lost = _lost(crew, name, state) if goes_on else None
    if since is None and not pending_operations(state) and lost is None:
        return Stood(told, False, state)
    from deployer.settle import Whose, settle

    if lost is not None and lost.cloud and (lost.cloud, lost.region) != (cloud, where.region):
        from deployer.down import member_of  # which needs this module

        cloud, where = lost.cloud, member_of(lost, where.kit.parent)  # it stands where it stood
        access = crew.deployment.realm.access(cloud, where)
    why = "looking for what an interrupted command left"
    crew.screen.phase(name, "settling", why if lost is None else "its state is empty: looking for what stands")
    whose = Whose(crew.deployment.federation, crew.deployment.ledger.deployment(), name)
    log = crew.log.file(name)

    def on_step(text: str) -> None:
        log.write(f"settle: {text}\n")
        crew.screen.phase(name, "settling", text)

    try:
        settled = settle(
            crew.deployment.realm.world(cloud, where, access),
            whose,
            state,
            failed=tuple(failed),
            since=datetime.fromtimestamp(since, timezone.utc) if since else None,
            on_step=on_step,
        )
    except FedspanError:
        raise
    except Exception as error:
        # whatever the clouds' clients raise: it must stop us, since going on could make things twice
        raise CloudError(
            "what an interrupted command left could not be settled",
            participant=name,
            why=f"{type(error).__name__}: {error}",
            next_step=f"fedspan {crew.verb} {name} tries again",
            log=str(crew.log.path(name)),
        ) from error
    if settled.changed and settled.deployment is not None and state is not None:
        engine.set_state(settled.deployment)
        state = engine.state()
    for action in settled.actions:
        crew.deployment.ledger.event(name, "settled", detail=action)
    crew.deployment.ledger.end_operation(name)
    return Stood([*told, *settled.actions], settled.refresh, state)


def _lost(crew: Crew, name: str, state: dict[str, Any] | None) -> Row | None:
    """What the ledger knows of a participant of which something stands, and of which the state knows nothing."""
    row = crew.deployment.ledger.participant(name)
    stands = row is not None and row.cloud and row.phase not in NOTHING_THERE
    return row if stands and not cloud_resources(state) else None
