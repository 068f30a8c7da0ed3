"""What the clouds hold, and the words for comparing it with a stack's state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from deployer.errors import CloudError

AGAIN = "the same command again looks again"

Deployment = Mapping[str, Any]
"""The `deployment` of an exported stack: `resources`, `pending_operations` and more."""

OnStep = Callable[[str], None]
"""Is told each step in one sentence, before it is taken."""


@dataclass(frozen=True)
class Whose:
    """The participant whose resources are meant: all three must be in a resource's tags."""

    federation: str
    deployment: str
    participant: str

    @classmethod
    def of(cls, args: Any) -> Whose:
        """From `stacks.args.ParticipantArgs`, or anything with the three names."""
        return cls(args.federation, args.deployment, args.participant)


@dataclass(frozen=True)
class Found:
    """Something that a cloud holds.

    Args:
        cloud: `aws` or `azure`.
        type: its Pulumi type, `aws:ec2/vpc:Vpc`.
        id: the ID by which a stack's state knows it; what has no ID of its own is told by its content (a route by its
            table and destination, a volume's attachment by device, volume and instance).
        name: its logical name in the stack, `site-1-vpc`; empty when nothing tells.
        region: where it is.
        goes_with: the ID of what takes it away when it is deleted itself (an OS disk goes with its machine): it is no
            orphan for as long as that exists.
        created: when, where the cloud says so.
        busy: the cloud is still at work on it; it would refuse another change.
        size: a machine's size.
        gib: a disk's size.
    """

    cloud: str
    type: str
    id: str
    name: str
    region: str
    goes_with: str = ""
    created: datetime | None = None
    busy: bool = False
    size: str = ""
    gib: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """What makes two of them the same: type and ID, in any case on Azure."""
        return self.type, self.id.lower() if self.cloud == "azure" else self.id

    @property
    def title(self) -> str:
        """`Instance site-1-vm (i-0123)`, for people."""
        short = self.id.rsplit("/", 1)[-1] if self.cloud == "azure" else self.id
        return f"{self.type.rsplit(':', 1)[-1]} {self.name or 'without a name'} ({short})"


@dataclass(frozen=True)
class Settled:
    """What `settle` did.

    `deployment` is the edited copy to import when `changed`; `actions` say in sentences what was done; with `refresh`
    the next `up` must refresh first, because an update was interrupted half-way.
    """

    deployment: dict[str, Any]
    changed: bool
    actions: tuple[str, ...]
    refresh: bool


class World(Protocol):
    """One cloud, seen with one participant's credentials."""

    def find(self, whose: Whose) -> list[Found]:
        """Everything of this participant that exists now."""
        ...

    def marked(self, federation: str) -> list[Whose]:
        """Everybody whose things here say by their tags that they are this federation's."""
        ...

    def zones(self, size: str) -> tuple[str, ...]:
        """Zones worth trying one by one for a machine of this size, when the cloud's own choice had no room."""
        ...

    def check(self, whose: Whose) -> None:
        """Raise `RefusedError` when a name of this participant is taken by somebody else."""
        ...

    def delete(self, found: Iterable[Found], on_step: OnStep) -> None:
        """Delete exactly these, in an order that works, and wait until they are gone. What is gone already is fine."""
        ...


def undeleted(thing: Found, why: str) -> CloudError:
    """The error for a resource that a cloud does not delete."""
    return CloudError(f"{thing.title} can't be deleted", resource=thing.title, why=why, next_step=AGAIN)
