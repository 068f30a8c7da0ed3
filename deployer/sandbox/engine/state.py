"""A resource's state, and a snapshot of a stack, as they lie in a checkpoint (deployment format 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any

from .values import Properties, from_checkpoint, to_checkpoint

VERSION = "v3.260.0+fedspan"

_NAMES = {  # attribute -> key of the checkpoint, in the order in which they are written
    "urn": "urn",
    "custom": "custom",
    "delete": "delete",
    "id": "id",
    "type": "type",
    "inputs": "inputs",
    "outputs": "outputs",
    "parent": "parent",
    "protect": "protect",
    "external": "external",
    "dependencies": "dependencies",
    "init_errors": "initErrors",
    "provider": "provider",
    "property_dependencies": "propertyDependencies",
    "pending_replacement": "pendingReplacement",
    "additional_secret_outputs": "additionalSecretOutputs",
    "custom_timeouts": "customTimeouts",
    "import_id": "importID",
    "retain_on_delete": "retainOnDelete",
    "deleted_with": "deletedWith",
    "replace_with": "replaceWith",
    "created": "created",
    "modified": "modified",
    "source_position": "sourcePosition",
    "ignore_changes": "ignoreChanges",
    "hide_diff": "hideDiff",
    "replace_on_changes": "replaceOnChanges",
    "hooks": "resourceHooks",
}
_PROPERTIES = frozenset({"inputs", "outputs"})


@dataclass(eq=False)
class Resource:
    """One resource as the engine knows it. Compared by identity: one URN may be there twice during a replacement."""

    urn: str
    type: str
    custom: bool = False
    delete: bool = False
    id: str = ""
    inputs: Properties = field(default_factory=dict)
    outputs: Properties = field(default_factory=dict)
    parent: str = ""
    protect: bool = False
    external: bool = False
    dependencies: list[str] = field(default_factory=list)
    init_errors: list[str] = field(default_factory=list)
    provider: str = ""
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    pending_replacement: bool = False
    additional_secret_outputs: list[str] = field(default_factory=list)
    custom_timeouts: dict[str, float] = field(default_factory=dict)
    import_id: str = ""
    retain_on_delete: bool = False
    deleted_with: str = ""
    replace_with: list[str] = field(default_factory=list)
    created: str = ""
    modified: str = ""
    source_position: str = ""
    ignore_changes: list[str] = field(default_factory=list)
    hide_diff: list[str] = field(default_factory=list)
    replace_on_changes: list[str] = field(default_factory=list)
    hooks: dict[str, list[str]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)  # keys of a newer engine: carried, not understood

    def copy(self) -> Resource:
        return Resource(**{f.name: getattr(self, f.name) for f in fields(self)})

    def to_json(self, encrypt: Callable[[str], str]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, key in _NAMES.items():
            value = getattr(self, name)
            if name in _PROPERTIES:
                value = to_checkpoint(value, encrypt)
            if value or name in {"urn", "custom", "type"}:
                out[key] = value
        return {**out, **self.extra}

    @classmethod
    def from_json(cls, data: dict[str, Any], decrypt: Callable[[str], str]) -> Resource:
        known = {key: name for name, key in _NAMES.items()}
        values: dict[str, Any] = {"extra": {k: v for k, v in data.items() if k not in known}}
        for key, name in known.items():
            if key in data:
                value = data[key]
                values[name] = from_checkpoint(value, decrypt) if name in _PROPERTIES else value
        return cls(**values)

    def needs(self) -> set[str]:
        """The URNs that must exist as long as this does: parent, provider, dependencies, and what deletes it."""
        found = {*self.dependencies, *(d for deps in self.property_dependencies.values() for d in deps)}
        found.update(filter(None, (self.parent, self.deleted_with)))
        if self.provider:
            found.add(self.provider.rpartition("::")[0])
        return found


@dataclass
class Pending:
    """An operation that was begun and not seen to end: creating, updating, deleting, reading or importing."""

    resource: Resource
    type: str


@dataclass
class Snapshot:
    """The resources of a stack, dependencies first, and what was pending."""

    resources: list[Resource] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)

    @classmethod
    def from_json(cls, data: dict[str, Any] | None, decrypt: Callable[[str], str]) -> Snapshot:
        data = data or {}
        return cls(
            [Resource.from_json(r, decrypt) for r in data.get("resources") or []],
            [
                Pending(Resource.from_json(p["resource"], decrypt), p["type"])
                for p in data.get("pending_operations") or []
            ],
        )

    def to_json(self, encrypt: Callable[[str], str], secrets: dict[str, Any] | None) -> dict[str, Any]:
        out: dict[str, Any] = {"manifest": manifest()}
        if secrets:
            out["secrets_providers"] = secrets
        if self.resources:
            out["resources"] = [r.to_json(encrypt) for r in self.resources]
        if self.pending:
            out["pending_operations"] = [
                {"resource": p.resource.to_json(encrypt), "type": p.type} for p in self.pending
            ]
        out["metadata"] = {}
        return out


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def manifest() -> dict[str, str]:
    return {"time": now(), "magic": hashlib.sha256(VERSION.encode()).hexdigest(), "version": VERSION}


def integrity_error(resources: Iterable[Resource]) -> str | None:
    """Why this order of resources can't be a state: something refers to what does not come before it."""
    seen: set[str] = set()
    for resource in resources:
        for name, urn in (("parent", resource.parent), *(("dependency", d) for d in resource.dependencies)):
            if urn and urn not in seen:
                return f"resource {resource.urn} refers to missing {name} {urn}"
        if resource.provider and resource.provider.rpartition("::")[0] not in seen:
            return f"resource {resource.urn} refers to unknown provider {resource.provider}"
        seen.add(resource.urn)
    return None
