"""The steps that look at what is there: reading what others own, adopting what exists, refreshing what is known."""

from __future__ import annotations

from dataclasses import dataclass

from . import urns
from .difference import invert
from .problems import InitFailed, ProviderError
from .state import now
from .steps import Step, World
from .values import changed_keys, equal, keep_secret


@dataclass(eq=False)
class Read(Step):
    """Reads a resource that somebody else owns (`Resource.get`)."""

    replacing: bool = False
    pending = "reading"

    @property
    def op(self) -> str:
        return "read-replacement" if self.replacing else "read"

    @property
    def logical(self) -> bool:
        """A resource that reads as it did before is not counted."""
        old, new = self.old, self.new
        return old is None or new is None or not equal(old.outputs, new.outputs)

    def apply(self, world: World) -> None:
        new = self.new
        assert new is not None
        new.created = new.modified = now()
        if not new.id or new.id == urns.UNKNOWN_ID:
            new.id, new.outputs = "", {}
            return
        id_, _, outputs = world.provider(new).read(new.urn, new.id, new.inputs, {}, self._timeout("read"))
        if not id_:
            raise ProviderError(f"resource '{new.id}' does not exist")
        new.id, new.outputs = id_, outputs
        if self.replacing and self.old is not None:
            self.old.delete = True


@dataclass(eq=False)
class Import(Step):
    """Adopts a resource that exists, in the place of another (`retire`) or of none.

    What the program says differently is then updated by a step of its own.
    """

    pending = "importing"
    retire: bool = False

    @property
    def op(self) -> str:
        return "import-replacement" if self.retire else "import"

    def apply(self, world: World) -> None:
        new = self.new
        assert new is not None
        id_, inputs, outputs = world.provider(new).read(new.urn, new.import_id, {}, {}, self._timeout("read"))
        if not id_:
            raise ProviderError(f"resource '{new.import_id}' does not exist")
        if inputs is None:
            raise ProviderError(
                f"provider does not support importing resources; please try updating the '{new.provider}' plugin"
            )
        # A provider reads without marks: what the program calls secret must not be written in the clear.
        new.id, new.inputs, new.outputs = id_, keep_secret(inputs, new.inputs), outputs
        new.created = new.modified = now()
        if self.retire and self.old is not None:
            self.old.delete = True


@dataclass(eq=False)
class Refresh(Step):
    """Reads what became of a resource; `new` is None afterwards when it is gone."""

    verb = "refresh"
    refresh_only: bool = False  # the command is a refresh: its outcome is the operation that counts

    @property
    def logical(self) -> bool:
        return False

    @property
    def result_op(self) -> str:
        """What the refresh found: same, update, or delete."""
        if self.new is None:
            return "delete"
        assert self.old is not None
        unchanged = self.new is self.old or not changed_keys(self.old.outputs, self.new.outputs)
        return "same" if unchanged and (self.new is self.old or equal(self.old.inputs, self.new.inputs)) else "update"

    def apply(self, world: World) -> None:
        old = self.old
        assert old is not None
        if not old.custom or urns.is_provider_type(old.type) or old.pending_replacement:
            return
        provider, reasons = world.provider(old), []
        inputs, outputs = None, None
        try:
            id_, inputs, outputs = provider.read(old.urn, old.id, old.inputs, old.outputs, self._timeout("read"))
        except InitFailed as error:
            # A resource that is there but not well does not fail the refresh: its reasons are kept for the next update.
            id_, reasons = error.id, error.reasons
            inputs, outputs = error.inputs, dict(error.outputs)
            lines = "\n* ".join(reasons)
            world.warn(old.urn, f"Refreshed resource is in an unhealthy state:\n* {lines}")
        if not id_:
            self.new = None
            return
        new = old.copy()
        new.id, new.outputs, new.init_errors = id_, outputs, reasons
        if inputs is not None:
            new.inputs = dict(inputs)
        if changed_keys(old.outputs, new.outputs) or not equal(old.inputs, new.inputs):
            new.modified = now()
        diff = provider.diff(old.urn, new.id, new.inputs, new.outputs, old.inputs, old.ignore_changes)
        self.new, self.diff = new, invert(diff)
