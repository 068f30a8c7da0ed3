"""What to do about an operation that did not end: decided from the state and from what the cloud holds. Pure.

The rule is the simplest that is always right:

- What the cloud holds and the state does not know is deleted. Nothing can depend on it: the engine goes on to what
  depends on a resource only when it has written that resource down.
- A deletion that was interrupted is finished, and leaves the state.
- An update that was interrupted is made again by the next `up`, after a refresh.
- No operation stays pending.

One thing is never deleted on suspicion: a participant's state volume. When the state does not know it although no
interrupted operation explains that, the state itself must have been lost, and a person has to look.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployer.settle.model import Deployment, Found
from deployer.settle.state import name_of, orphans, pending, state_key

STATE_VOLUMES = ("aws:ebs/volume:Volume", "azure-native:compute:Disk")
RESOURCE_GROUP = "azure-native:resources:ResourceGroup"

CLOCK_SKEW = timedelta(minutes=5)
"""How far the clocks of this machine and of a cloud may differ when the age of a volume is judged."""


@dataclass(frozen=True)
class Decision:
    """`delete`: in the cloud. `drop`: (URN, ID) of entries that leave the state. `doubtful`: volumes to ask about.

    `interrupted` are the names whose operation was open, for telling. `refresh`: an update was interrupted.
    """

    delete: tuple[Found, ...]
    drop: tuple[tuple[str, str], ...]
    doubtful: tuple[Found, ...]
    interrupted: tuple[str, ...]
    refresh: bool

    @property
    def empty(self) -> bool:
        """Nothing is to be done."""
        return not (self.delete or self.drop or self.doubtful or self.interrupted)


def decide(
    found: Iterable[Found],
    deployment: Deployment | None,
    *,
    participant: str,
    failed: Iterable[str] = (),
    since: datetime | None = None,
) -> Decision:
    """Decide. `failed`: URNs whose create failed; `since`: when the first operation began that did not end cleanly."""
    things = list(found)
    operations = pending(deployment)
    creating = {name_of(str(op["resource"]["urn"])) for op in operations if op.get("type") == "creating"}
    creating |= {name_of(urn) for urn in failed}
    deleting = [op["resource"] for op in operations if op.get("type") == "deleting" and op["resource"].get("id")]
    finishing = {state_key(entry) for entry in deleting}
    unknown = orphans(things, deployment)
    delete = [t for t in things if t in unknown or t.key in finishing]
    delete = _with_companions(delete, things)
    state_name = f"{participant}-state"
    doubtful = [
        t
        for t in delete
        if t.type in STATE_VOLUMES
        and t.name in (state_name, "")
        and t.key not in finishing
        and not _explained(t, creating, finishing, since, things)
    ]
    return Decision(
        delete=tuple(delete),
        drop=tuple((str(entry["urn"]), str(entry["id"])) for entry in deleting),
        doubtful=tuple(doubtful),
        interrupted=tuple(f"{op.get('type')} {name_of(str(op['resource']['urn']))}" for op in operations),
        refresh=any(op.get("type") not in ("creating", "deleting", "reading", "importing") for op in operations),
    )


def _explained(
    volume: Found,
    creating: set[str],
    finishing: set[tuple[str, str]],
    since: datetime | None,
    things: list[Found],
) -> bool:
    """Whether an interrupted operation accounts for this volume's not being in the state."""
    if volume.name in creating:
        return True
    # The engine forgets what is deleted with a resource group before it deletes the group.
    if any(t.type == RESOURCE_GROUP and t.key in finishing for t in things):
        return True
    return since is not None and volume.created is not None and volume.created >= since - CLOCK_SKEW


def _with_companions(delete: list[Found], things: list[Found]) -> list[Found]:
    """What is listed goes with what takes it along; a resource group takes everything in it."""
    groups = [t for t in delete if t.type == RESOURCE_GROUP]
    chosen = list(delete)
    for thing in things:
        inside = any(thing.id.lower().startswith(f"{group.id.lower()}/") for group in groups)
        if inside and thing not in chosen:
            chosen.append(thing)
    return chosen
