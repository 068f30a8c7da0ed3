"""Next commands as a kit's owner types them: with the kit's scripts, there is no federation.yml. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deployer.engine_home import GIVE_UP
from startup_kits.errors import FedspanError

_IN_SPEC = "set another zone:, size: or region: in federation.yml"
_BY_HAND = (
    "delete what the cloud holds by its tag `fedspan:federation` (Azure: `fedspan-federation`), move that folder away"
)
_OPTIONS = "choose another --zone, --size or --region"


def owners_next(text: str, name: str, kit: Path, cloud: str, log_in: str = "") -> str:
    """A next step with the owner's commands in place of the lead's.

    Args:
        name: the participant.
        log_in: the `ssh` command that reaches its machine; empty where none is known yet.
    """
    start, stop = f"{kit}/start.sh --cloud {cloud}", f"{kit}/stop.sh --cloud"
    commands = [
        (rf"fedspan(?: --sandbox)? up(?: {re.escape(name)})?(?! --kit)\b", start),
        (rf"fedspan(?: --sandbox)? down(?: {re.escape(name)})?(?! --kit)\b", stop),
        (r"fedspan(?: --sandbox)? plan\b", start),
    ]
    if log_in:
        commands += [
            (rf"fedspan ssh {re.escape(name)}(?: --)?", log_in),
            (rf"fedspan logs {re.escape(name)}(?: --tail \d+)?", f"{log_in} tail /var/lib/fedspan/state/runtime.log"),
        ]
    # what stands in federation.yml an owner gives with options
    text = (
        text.replace(GIVE_UP, _BY_HAND)
        .replace(_IN_SPEC, _OPTIONS)
        .replace("set another size: or region: in federation.yml", _OPTIONS)
    )
    for pattern, command in commands:
        text = re.sub(pattern, lambda _, command=command: command, text)  # type: ignore[misc]  # one line, bound now
    return text


@contextmanager
def owners_words(name: str, kit: Path, cloud: str, log_in: Callable[[], str]) -> Iterator[None]:
    """Errors that pass through name the owner's commands; `log_in` is asked when there is one."""
    try:
        yield
    except FedspanError as error:
        if error.next_step:
            error.next_step = owners_next(error.next_step, name, kit, cloud, log_in())
        raise
