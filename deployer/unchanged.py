"""What a stack was found to be in keeping with need not be asked of the engine again.

A preview that does not look at the cloud depends on the program, its arguments and identity, the packages that the
program is made of, and the checkpoint. Where none of these is another than when nothing was to be changed, or when an
`up` had made it so, nothing is to be changed now. `--refresh` always asks.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import stacks
from deployer.ledger import Ledger
from deployer.programs import PROVIDERS
from stacks.access import Access
from stacks.args import ParticipantArgs


def digest(cloud: str, args: ParticipantArgs, access: Access, state: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of all that a preview depends on."""
    told = [repr(args), repr(access), _packages(cloud), json.dumps(state, sort_keys=True)]
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


@functools.cache
def _packages(cloud: str) -> str:
    found = [f"{name} {version(name)}" for name in ("pulumi", PROVIDERS[cloud][1])]
    folder = Path(stacks.__file__).parent
    # not fedspan's version: a checkout changes without one
    for path in sorted([*folder.glob("*.py"), *folder.glob("*.csv")]):
        found.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return " ".join(found)


def keep(ledger: Ledger, participant: str, found: str) -> None:
    """Note that with this digest nothing is to be changed."""
    ledger.set_meta(_key(participant), found)


def is_kept(ledger: Ledger, participant: str, found: str) -> bool:
    """Whether that has been noted, and nothing else since."""
    return ledger.meta(_key(participant)) == found


def _key(participant: str) -> str:
    return f"unchanged:{participant}"
