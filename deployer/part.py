"""One participant while `plan` or `up` works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployer import checkpoint
from deployer.engine import Preview, Program
from deployer.ingress import Opening
from deployer.member import Member
from stacks.args import ParticipantArgs
from stacks.names import Stage
from stacks.program import participant_program


@dataclass
class Part:
    """What is known of one participant while `plan` or `up` works.

    Attributes:
        state: the stack's checkpoint; None without a stack.
        args: what the full program is made from, with what was known when the plan was made.
        preview: what the engine said, where it was asked.
        made: the engine has just made the stack what the arguments say.
        refresh: the engine has to look at the cloud first: an update was interrupted, or somebody asked for it.
    """

    member: Member
    state: dict[str, Any] | None = None
    args: ParticipantArgs | None = None
    preview: Preview | None = None
    made: bool = False
    refresh: bool = False
    access: Any = None
    openings: tuple[Opening, ...] = ()

    @property
    def has_address(self) -> bool:
        """Whether the stack has its static address, so that the smaller program must not run any more."""
        return checkpoint.has_address(self.state)

    @property
    def moved_from(self) -> str | None:
        """Where the stack lies, when it is wanted in another cloud or region: then it is taken down and made anew."""
        there = checkpoint.place_of(self.state)
        if there is None or (there[0] == self.member.cloud and there[1] in (None, self.member.region)):
            return None
        return " ".join(word for word in there if word)

    @property
    def holds_something(self) -> bool:
        """Whether the stack holds resources of a cloud."""
        return bool(checkpoint.cloud_resources(self.state))

    def program(self, stage: Stage = "full") -> Program:
        """The stack's program for what is known now."""
        assert self.member.cloud is not None, "only a participant in a cloud has a program"
        assert self.args is not None, "args are made first"
        return participant_program(self.member.cloud, self.args, self.access, stage)
