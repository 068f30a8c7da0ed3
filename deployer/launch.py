"""What a runtime was started with, and what ran before it: kept on the machine beside the runtime itself.

So that a machine can be turned off and on, and a runtime put back to the one before, by whoever can log in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Launch:
    """What is to run.

    Attributes:
        bundle, kit: content hashes; a change of either means a restart.
        venv: absolute path of the virtual environment on the machine.
        description: for people.
        ca_fingerprint: the kit is verified against it before each start.
        labels: told to the server by the runtime.
        port: the server's port, None on a site.
        environment: variables of the runtime, nothing secret.
    """

    bundle: str
    kit: str
    venv: str
    description: str
    ca_fingerprint: str
    labels: Mapping[str, str]
    port: int | None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """The machine's note. `digest` is empty where nothing was ever started.

    Attributes:
        digest: of everything that decides how the process runs.
        launch: what runs, None where an older fedspan wrote the note.
        previous: the launch before with another bundle, whose environment is kept.
    """

    digest: str = ""
    launch: Launch | None = None
    previous: Launch | None = None

    def followed_by(self, launch: Launch, digest: str) -> Started:
        """The note after another launch. Pure."""
        before = self.launch
        other = before is not None and before.bundle != launch.bundle
        return Started(digest, launch, before if other else self.previous)

    def text(self) -> bytes:
        """As the machine keeps it."""
        launch = asdict(self.launch) if self.launch else None
        document: dict[str, Any] = {"launch": self.digest, "what": launch}
        document["previous"] = asdict(self.previous) if self.previous else None
        return json.dumps(document).encode()

    @classmethod
    def read(cls, text: str) -> Started:
        """From the machine's note; the empty one where it can't be read."""
        try:
            document = json.loads(text)
            what, previous = document.get("what"), document.get("previous")
            return cls(
                str(document["launch"]), Launch(**what) if what else None, Launch(**previous) if previous else None
            )
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls()


def digest_of(*parts: Any) -> str:
    """One hash of everything that decides how a process runs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
