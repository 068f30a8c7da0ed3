"""What a machine in Azure runs before it powers itself off: a command that asks its cloud to deallocate it.

It stands in the service that a timer starts, before `systemctl poweroff`: a script, run by the machine's Python, whose
failure changes nothing (`ExecStart=-`). Here it is run as it is written there, with its paths below the machine's root.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from deployer.sandbox.machines.session import Commands
from deployer.sandbox.machines.timer import UNITS

_COMMAND = re.compile(r"(?m)^ExecStart=-(/usr/bin/python3 -I /usr/local/lib/fedspan/deallocate\.py .*)$")


def command_of(root: Path) -> list[str] | None:
    """The command of the machine under `root`, to be run from outside of it; None where no service has it."""
    for path in sorted((root / UNITS).glob("*.service")):
        try:
            found = _COMMAND.search(path.read_text())
        except (OSError, UnicodeDecodeError):
            continue
        if found:
            words = shlex.split(found[1].replace("%%", "%").replace("$$", "$"))
            paths = {0, 2, *(i + 1 for i, word in enumerate(words) if word == "--ca")}
            return [f"{root}{word}" if i in paths else word for i, word in enumerate(words)]
    return None


async def run(root: Path, commands: Commands, log: Callable[[str], None]) -> None:
    """Run it to its end, if there is one; what it says goes to the machine's log."""
    argv = command_of(root)
    if argv is None:
        return
    code = await commands.run(argv, lambda line: log(f"deallocate.py: {line}"))
    log(f"deallocate.py: exit status {code}")
