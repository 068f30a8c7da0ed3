"""The steps of a deployment: what each does to the world (through a provider) and to the state.

A step has an `op` as the events name it, the `old` and `new` states, and `apply`, which does it and may raise
ProviderError. `logical` says whether it counts as an operation of its own (the parts of a replacement do not).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from . import urns
from .difference import Diff
from .problems import InitFailed, ProviderError
from .provider import Provider
from .state import Resource, now
from .values import identical

if TYPE_CHECKING:
    from .registry import Registry

Answer = Callable[["Step"], None]


@dataclass
class World:
    """What a step works with."""

    registry: Registry
    preview: bool
    warn: Callable[[str, str], None]  # urn, message
    deletes: set[str] = field(default_factory=set)  # URNs that this deployment deletes

    def provider(self, resource: Resource) -> Provider:
        return self.registry.get(resource.provider)


@dataclass(eq=False)
class Step:
    """The parts that all steps share. `answer` is called with the step when the program waits for its outcome."""

    old: Resource | None = None
    new: Resource | None = None
    diff: Diff = field(default_factory=Diff)
    answer: Answer | None = None

    verb: ClassVar[str] = "same"
    pending: ClassVar[str] = ""  # the operation that the checkpoint names while the step runs; empty: none

    @property
    def op(self) -> str:
        """The operation as the events name it."""
        return self.verb

    @property
    def logical(self) -> bool:
        """Whether it counts as an operation of its own; the parts of a replacement do not."""
        return True

    @property
    def resource(self) -> Resource:
        found = self.new or self.old
        assert found is not None
        return found

    @property
    def urn(self) -> str:
        return self.resource.urn

    @property
    def internal(self) -> bool:
        """Default providers are made and unmade by the engine and are not counted."""
        return urns.is_default_provider(self.urn)

    def apply(self, world: World) -> None:
        raise NotImplementedError

    def _timeout(self, kind: str) -> float:
        return float(self.resource.custom_timeouts.get(kind, 0))


@dataclass(eq=False)
class Same(Step):
    """Nothing changes. `skipped`: a resource that a targeted update leaves unmade."""

    skipped: bool = False

    def apply(self, world: World) -> None:
        assert self.new is not None
        if self.old is None:
            return
        self.new.id, self.new.outputs = self.old.id, self.old.outputs
        if identical(self.old.inputs, self.new.inputs):
            self.new.inputs = self.old.inputs  # with the ciphertexts of its secrets
        self.new.created, self.new.modified = self.old.created, self.old.modified
        if urns.is_provider_type(self.new.type):
            world.registry.same(self.old)


@dataclass(eq=False)
class Create(Step):
    """Makes a resource; as part of a replacement, before (`retire`) or after the old one goes."""

    replacing: bool = False
    retire: bool = False
    pending = "creating"

    @property
    def op(self) -> str:
        return "create-replacement" if self.replacing else "create"

    @property
    def logical(self) -> bool:
        return not self.replacing

    def apply(self, world: World) -> None:
        new = self.new
        assert new is not None
        failed: InitFailed | None = None
        if urns.is_provider_type(new.type):
            new.id, new.outputs = world.registry.create(new, preview=world.preview), dict(new.inputs)
            new.outputs.pop("__internal", None)
        elif new.custom:
            try:
                new.id, new.outputs = world.provider(new).create(
                    new.urn, new.inputs, self._timeout("create"), preview=world.preview
                )
            except InitFailed as error:
                failed = error
                new.id, new.outputs, new.init_errors = error.id, dict(error.outputs), error.reasons
        new.created = new.modified = now()
        if self.retire and self.old is not None:
            self.old.delete = True
        if failed is not None:
            raise failed


@dataclass(eq=False)
class Replace(Step):
    """The bookkeeping of a replacement, between the making of the new and the deletion of the old."""

    verb = "replace"
    retire: bool = False

    def apply(self, world: World) -> None:
        """Nothing happens in the world."""


@dataclass(eq=False)
class Update(Step):
    verb = "update"
    pending = "updating"

    def apply(self, world: World) -> None:
        old, new = self.old, self.new
        assert old is not None
        assert new is not None
        new.id, new.created, new.modified = old.id, old.created, now()
        if urns.is_provider_type(new.type):
            world.registry.update(new)
            new.outputs = {k: v for k, v in new.inputs.items() if k != "__internal"}
        elif new.custom:
            try:
                new.outputs = world.provider(new).update(old, new, self._timeout("update"), preview=world.preview)
            except InitFailed as error:
                new.outputs, new.init_errors = dict(error.outputs), error.reasons
                if error.inputs is not None:
                    new.inputs = dict(error.inputs)
                raise


@dataclass(eq=False)
class Delete(Step):
    """Deletes a resource; `replacing`: as the old half of a replacement, `awaited`: the new half is yet to come.

    What is awaited stays in the state, marked, until the new resource is there: what depends on it refers to it.
    """

    replacing: bool = False
    awaited: bool = False
    pending = "deleting"

    @property
    def op(self) -> str:
        verb = "discard" if self.resource.external else "delete"
        return f"{verb}-replaced" if self.replacing else verb

    @property
    def logical(self) -> bool:
        return not self.replacing

    def apply(self, world: World) -> None:
        old = self.old
        assert old is not None
        if old.protect:
            raise ProviderError(
                f'resource "{old.urn}" cannot be deleted\nbecause it is protected. To unprotect the resource, '
                "either remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`, "
                "or use the command:\n"
                f"`pulumi state unprotect '{old.urn}'`"
            )
        gone_with = bool(old.deleted_with) and old.deleted_with in world.deletes
        left = world.preview or old.external or old.retain_on_delete or gone_with
        if old.custom and not left and not urns.is_provider_type(old.type):
            world.provider(old).delete(old, self._timeout("delete"))
        if self.awaited and not world.preview:
            old.pending_replacement = True


@dataclass(eq=False)
class Forget(Step):
    """Takes a resource out of the state that was deleted for a replacement which never came."""

    verb = "remove-pending-replace"

    @property
    def logical(self) -> bool:
        return False

    def apply(self, world: World) -> None:
        """It is gone from the world already."""
