"""What a program asks for: a resource to be registered or read, and the end of a component."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from .state import Resource
from .urns import Alias
from .values import Properties


@dataclass
class Goal:
    """A resource as the program wants it. None in a flag: not said, so the parent's counts."""

    type: str
    name: str
    custom: bool
    parent: str = ""
    properties: Properties = field(default_factory=dict)
    provider: str = ""
    dependencies: list[str] = field(default_factory=list)
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    protect: bool | None = None
    retain_on_delete: bool | None = None
    delete_before_replace: bool | None = None
    ignore_changes: list[str] = field(default_factory=list)
    replace_on_changes: list[str] = field(default_factory=list)
    additional_secret_outputs: list[str] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)
    import_id: str = ""
    read_id: str = ""  # the id of a resource that is read only
    custom_timeouts: dict[str, float] = field(default_factory=dict)
    deleted_with: str = ""
    replace_with: list[str] = field(default_factory=list)
    hide_diff: list[str] = field(default_factory=list)
    source_position: str = ""
    hooks: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Result:
    """What became of a registration."""

    state: Resource
    stables: list[str] = field(default_factory=list)
    all_stable: bool = False
    unknown: bool = False  # not made by a targeted update: its outputs are not known
    failed: bool = False


class Registration:
    """A goal on its way, and the thread that waits for it."""

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self._ready = threading.Event()
        self._result: Result | None = None

    def answer(self, result: Result | None) -> None:
        """None: the deployment is over, there will be no answer."""
        self._result = result
        self._ready.set()

    def wait(self) -> Result | None:
        self._ready.wait()
        return self._result
