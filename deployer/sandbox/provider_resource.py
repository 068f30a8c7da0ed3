"""What a resource type is to the sandbox's provider plugins, and what an operation on one knows and may raise."""

from __future__ import annotations

import random
import secrets as random_source
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from deployer.sandbox.provider_values import UNKNOWN, Change, changes

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 600.0
POLL_S = 0.05
Values = dict[str, Any]


class ProviderError(Exception):
    """The operation failed and nothing of the resource exists because of it. The text is what a user reads."""


class OperationCancelled(ProviderError):
    """Cancel arrived while the operation waited."""


class InitError(Exception):
    """The resource exists (the engine must keep its id) but is not as asked for; the next update repairs it."""

    def __init__(self, resource_id: str, outputs: Values, reason: str) -> None:
        super().__init__(reason)
        self.resource_id, self.outputs, self.reason = resource_id, outputs, reason


@dataclass
class Session:
    """One configured provider: its configuration, what `configure` made of it, and its Cancel."""

    config: Values = field(default_factory=dict)
    state: Any = None
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Call:
    """What an operation knows about itself: the resource, its provider's session, how long it may take."""

    session: Session
    urn: str = ""
    name: str = ""
    type: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
    seed: bytes = b""
    started: float = field(default_factory=time.monotonic)
    attempt: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def state(self) -> Any:
        return self.session.state

    def wait(self, seconds: float) -> None:
        """Wait like a cloud's latency. Cancel and the operation's time-out end it with an error."""
        left = self.started + self.timeout_s - time.monotonic()
        if self.session.cancelled.wait(max(0.0, min(seconds, left))):
            raise OperationCancelled("the operation was cancelled")
        if seconds > left:
            raise ProviderError(f"timeout: not done after {self.timeout_s:g} s")

    def until(self, probe: Callable[[], T | None], every_s: float = POLL_S) -> T:
        """Ask `probe` again and again until it answers something true, at most for the operation's time."""
        while True:
            if found := probe():
                return found
            self.wait(every_s)


@dataclass(frozen=True)
class Live:
    """What Read found: the resource as it is, and the inputs that would make it so."""

    outputs: Values
    inputs: Values
    id: str | None = None


class Resource:
    """One resource type. Values are plain, never wrapped as secrets; before the operation they may be UNKNOWN."""

    token: ClassVar[str]
    inputs: ClassVar[frozenset[str]] = frozenset()  # every input that is emulated; another one is refused
    required: ClassVar[tuple[str, ...]] = ()
    computed: ClassVar[tuple[str, ...]] = ()  # outputs that only the cloud knows
    replace_on: ClassVar[frozenset[str]] = frozenset()  # dotted paths whose change makes a new resource
    sets: ClassVar[frozenset[str]] = frozenset()  # paths of lists without an order
    defaults: ClassVar[Mapping[str, Any]] = {}
    autoname: ClassVar[str | None] = None  # the property that gets "<name>-1a2b3c4" when not given
    delete_before_replace: ClassVar[bool] = False

    def check(self, call: Call, news: Values, olds: Values) -> tuple[Values, list[tuple[str, str]]]:
        """Inputs with defaults filled in, and the failures as (property, reason)."""
        failures = [(key, f"Missing required property '{key}'") for key in self.required if news.get(key) is None]
        failures += [
            (key, f"the sandbox does not emulate the property '{key}' of {self.token}")
            for key in news
            if self.inputs and key not in self.inputs and not key.startswith("__") and news[key] is not None
        ]
        filled = {**news}
        defaulted = []
        for key, value in self.defaults.items():
            if filled.get(key) is None:
                filled[key] = value
                defaulted.append(key)
        if self.autoname and filled.get(self.autoname) is None and self.autonamed(filled):
            kept = olds.get(self.autoname) if self.autoname in olds.get("__defaults", []) else None
            filled[self.autoname] = kept or f"{call.name}-{_suffix(call.seed)}"
            defaulted.append(self.autoname)
        filled["__defaults"] = sorted(defaulted)
        return filled, failures

    def autonamed(self, news: Values) -> bool:
        """Is a name made up here? (Not when the resource takes a name prefix instead.)"""
        return True

    def differences(self, call: Call, old_inputs: Values, news: Values, olds: Values) -> list[Change]:
        """What changed: by default the inputs. `olds` is the recorded state, for what is derived."""
        return list(changes(old_inputs, news, sets=self.sets))

    def replaces(self, change: Change, old_inputs: Values, news: Values) -> bool:
        return any(change.under(path) or path.startswith(change.path + ".") for path in self.replace_on)

    def deletes_first(self, old_inputs: Values, news: Values) -> bool:
        """Must the old one go before the new one is made? Yes where both would bear the same given name."""
        named = self.autoname is not None and self.autoname not in news.get("__defaults", [])
        return self.delete_before_replace or (
            named and news.get(self.autoname or "") == old_inputs.get(self.autoname or "") is not None
        )

    def preview(self, call: Call, inputs: Values, olds: Values | None) -> Values:
        """Outputs as far as they can be told before: all that is computed is unknown on create and kept on update."""
        given = {key: value for key, value in inputs.items() if not key.startswith("__")}
        known = dict.fromkeys(self.computed, UNKNOWN) if olds is None else dict(olds)
        return {**known, **given}

    def create(self, call: Call, inputs: Values) -> tuple[str, Values]:
        """Make it. Answers its id and its outputs; raises ProviderError, or InitError once it exists."""
        raise NotImplementedError

    def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Live | None:
        """The live resource, or None when it is gone. On import `state` and `inputs` are empty."""
        raise NotImplementedError

    def update(self, call: Call, resource_id: str, olds: Values, news: Values, old_inputs: Values) -> Values:
        """Change it in place and answer its outputs. Must also finish what an InitError left undone."""
        raise NotImplementedError

    def delete(self, call: Call, resource_id: str, state: Values) -> None:
        """Remove it; what is gone already is no error."""
        raise NotImplementedError


def _suffix(seed: bytes) -> str:
    """Seven hexadecimal digits; the same for the same seed, so that an update names what its preview named."""
    if not seed:
        return random_source.token_hex(4)[:7]
    return f"{random.Random(seed).getrandbits(28):07x}"  # noqa: S311 - a name, not a secret
