"""Whether a plan would delete a volume on which a runtime's state lies: then `up` does not begin. Pure.

The engine knows only that a volume can't change its zone or its key, and makes another, empty one in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from deployer.engine_events import Step
from deployer.errors import RefusedError
from deployer.ledger_rows import Event
from deployer.part import Part
from deployer.placement import stood
from deployer.settle.decide import STATE_VOLUMES
from stacks.names import logical_name

# federation.yml's fields by the clouds' properties that replace a volume
_FIELDS = {"availabilityZone": "zone", "zones": "zone", "kmsKeyId": "kms_key"}


def lost_volume(part: Part, events: Sequence[Event]) -> Step | None:
    """The engine's step that deletes or replaces a participant's state volume, where its machine ever stood.

    Not where the participant moves to another cloud or region: then no engine is asked, and the plan says so itself.

    Args:
        events: the participant's, oldest first.
    """
    if part.preview is None or part.moved_from:
        return None
    volume = logical_name(part.member.name, "state")
    for step in part.preview.steps:
        if step.type in STATE_VOLUMES and step.name == volume and step.action in ("replace", "delete"):
            return step if stood(events) else None
    return None


def note_of(step: Step) -> str:
    """What a plan says of it, after the participant's name."""
    return f"would lose its volume with the runtime's state ({_fields(step)} changed): fedspan up refuses"


def check_state(part: Part, events: Sequence[Event]) -> None:
    """Raise RefusedError where the plan would delete what a runtime has written."""
    step = lost_volume(part, events)
    if step is None:
        return
    name, fields = part.member.name, _fields(step)
    raise RefusedError(
        "its volume holds the runtime's state, and an empty one would replace it",
        participant=name,
        why=f"{fields} is not as it was when the volume was made, and no cloud changes that of a volume: its jobs, "
        "models and registrations would be gone",
        next_step=f"put {fields} back as it was; or give the state up: fedspan down {name}, then fedspan up {name}",
    )


def _fields(step: Step) -> str:
    """What has to be put back, as federation.yml calls it."""
    changed = (reason.partition("[")[0] for reason in step.reasons)
    return " and ".join(sorted({_FIELDS.get(reason, reason) for reason in changed})) or "zone or kms_key"
