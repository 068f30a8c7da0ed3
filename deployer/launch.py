"""What a runtime was started with, and what ran before it: kept on the machine beside the runtime itself.

So that a machine can be turned off and on, and a runtime put back to the one before, by whoever can log in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
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
    """The machine's note. `digest` is empty where nothing was ever started, or where a start is not over.

    Attributes:
        digest: of everything that decides how the process runs.
        launch: what came up last, None where an older fedspan wrote the note.
        previous: the launch before with another bundle, whose environment is kept.
        trying: bundle of a launch that was begun after `launch` and did not come up (yet); else empty.
    """

    digest: str = ""
    launch: Launch | None = None
    previous: Launch | None = None
    trying: str = ""

    @property
    def back(self) -> Launch | None:
        """Where a rollback leads: what came up last if another bundle was tried since and did not, else `previous`."""
        if self.launch is not None and self.trying not in ("", self.launch.bundle):
            return self.launch
        return self.previous

    def begun(self, launch: Launch) -> Started:
        """The note while another launch is started: nothing counts as running until it is up. Pure."""
        return replace(self, digest="", trying=launch.bundle)

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
        document["trying"] = self.trying
        return json.dumps(document).encode()

    @classmethod
    def read(cls, text: str) -> Started:
        """From the machine's note; the empty one where it can't be read."""
        try:
            document = json.loads(text)
            what, previous = document.get("what"), document.get("previous")
            return cls(
                str(document["launch"]),
                Launch(**what) if what else None,
                Launch(**previous) if previous else None,
                str(document.get("trying") or ""),
            )
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls()


def digest_of(*parts: Any) -> str:
    """One hash of everything that decides how a process runs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
