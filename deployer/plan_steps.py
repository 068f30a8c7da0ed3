"""What happens to a participant's resources: as the engine says, or as the stack describes itself where none stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.checkpoint import cloud_resources
from deployer.engine import Preview
from deployer.engine_events import Step, urn_name
from stacks.args import ParticipantArgs
from stacks.names import Cloud
from stacks.resources import describe


def steps_of(
    preview: Preview | None, state: Mapping[str, Any] | None, cloud: Cloud, args: ParticipantArgs
) -> tuple[Step, ...]:
    """The steps. Without a preview what is there goes (a stack that moves), and everything is created."""
    if preview is not None:
        return preview.steps
    leaving = [entry for entry in cloud_resources(state) if not entry.get("external")]
    gone = [Step(entry["urn"], entry["type"], urn_name(entry["urn"]), "delete") for entry in leaving]
    resources = describe(cloud, args, "full")
    made = [Step(f"new::{entry.type}::{entry.name}", entry.type, entry.name, "create") for entry in resources]
    return (*gone, *made)
