"""The outputs of components, which the program registers when all their children have been."""

from __future__ import annotations

from dataclasses import dataclass, field

from .events import Stream
from .journal import Journal
from .state import now
from .steps import Create, Step
from .values import Properties, identical


@dataclass
class Components:
    """The steps by which components were registered, by URN, and what becomes of their outputs."""

    events: Stream
    journal: Journal
    preview: bool
    steps: dict[str, Step] = field(default_factory=dict)

    def set_outputs(self, urn: str, outputs: Properties) -> None:
        step = self.steps.get(urn)
        if step is None or step.new is None:
            return
        new = step.new
        if step.old is not None and identical(step.old.outputs, outputs):
            outputs = step.old.outputs
        elif not isinstance(step, Create):
            new.modified = now()
        new.outputs = outputs
        self.events.outputs(step)
        if not self.preview:
            self.journal.save()

    def set_root_outputs(self, urn: str, outputs: Properties, *, complete: bool) -> None:
        """The stack's own outputs, at the very end; after a failure, old ones that were not said again are kept."""
        step = self.steps.get(urn)
        if not complete and step is not None and step.old is not None:
            outputs = {**step.old.outputs, **outputs}
        self.set_outputs(urn, outputs)
