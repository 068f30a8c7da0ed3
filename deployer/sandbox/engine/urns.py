"""URNs: `urn:pulumi:STACK::PROJECT::[PARENT TYPE$]TYPE::NAME`, their parts, and the aliases a resource was known by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STACK_TYPE = "pulumi:pulumi:Stack"
PROVIDER_PREFIX = "pulumi:providers:"
UNKNOWN_ID = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def qualified_type(urn: str) -> str:
    """The type with its parents' types, joined by `$`."""
    return urn.split("::", 3)[2] if urn else ""


def type_of(urn: str) -> str:
    return qualified_type(urn).rsplit("$", 1)[-1]


def name_of(urn: str) -> str:
    return urn.split("::", 3)[3] if urn else ""


def make(stack: str, project: str, parent: str, type_: str, name: str) -> str:
    above = qualified_type(parent)
    prefix = f"{above}$" if above and above != STACK_TYPE else ""
    return f"urn:pulumi:{stack}::{project}::{prefix}{type_}::{name}"


def is_provider_type(type_: str) -> bool:
    return type_.startswith(PROVIDER_PREFIX)


def provider_package(type_: str) -> str:
    return type_[len(PROVIDER_PREFIX) :]


def package_of(type_: str) -> str:
    """`aws` of `aws:ec2/instance:Instance`."""
    return type_.split(":", 1)[0]


def is_default_provider(urn: str) -> bool:
    name = name_of(urn)
    return is_provider_type(type_of(urn)) and (name == "default" or name.startswith("default_"))


def reference(urn: str, id_: str) -> str:
    """A provider reference as resources carry it."""
    return f"{urn}::{id_}"


def split_reference(ref: str) -> tuple[str, str]:
    urn, _, id_ = ref.rpartition("::")
    return urn, id_


@dataclass(frozen=True)
class Alias:
    """One former identity: a whole URN, or the parts that differed (empty ones are today's)."""

    urn: str = ""
    name: str = ""
    type: str = ""
    stack: str = ""
    project: str = ""
    parent: str = ""
    no_parent: bool = False

    def resolve(self, stack: str, project: str, parent: str, type_: str, name: str) -> str:
        if self.urn:
            return self.urn
        above = "" if self.no_parent else self.parent or parent
        return make(self.stack or stack, self.project or project, above, self.type or type_, self.name or name)


def inherited(child_name: str, parent_name: str, parent_alias: str, child_type: str) -> str:
    """The URN that a child had when its parent was `parent_alias`; a child's name that begins with its parent's
    follows it.
    """
    stack, project = parent_alias.removeprefix("urn:pulumi:").split("::", 2)[:2]
    old_parent = name_of(parent_alias)
    if child_name.startswith(parent_name):
        child_name = old_parent + child_name[len(parent_name) :]
    return make(stack, project, parent_alias, child_type, child_name)


def provider_name(version: str, url: str = "") -> str:
    """The name of the default provider for a version: `default_7_51_1`."""
    parts = ["default"]
    if version:
        parts.append("".join(c if c.isalnum() or c == "-" else "_" for c in version))
    if url:
        parts.append("".join(c if c.isalnum() else "_" for c in url))
    return "_".join(parts)


def unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
