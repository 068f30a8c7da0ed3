"""A request and an answer, apart from how they travel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer.sandbox.azure.arm_errors import ArmError


@dataclass(frozen=True)
class Request:
    """One HTTP request. Query names and header names are in lower case; `base` is this server's own URL."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes
    base: str

    @property
    def parts(self) -> list[str]:
        return [part for part in self.path.split("/") if part]

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises ARM's error for a body that is none."""
        try:
            found = json.loads(self.content or b"{}")
        except ValueError as error:
            raise ArmError(
                400,
                "InvalidRequestContent",
                f"The request content was invalid and could not be deserialized: '{error}'.",
            ) from None
        if not isinstance(found, dict):
            raise ArmError(400, "InvalidRequestContent", "The request content was invalid: it has to be a JSON object.")
        return found


@dataclass
class Answer:
    """One HTTP answer; `body` is JSON-ready data, text, or nothing. It is sent after `hold_s` seconds."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hold_s: float = 0.0
