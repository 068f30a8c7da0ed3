"""The exchange behind a push: the machine's Python is given two modules, then questions and answers go as JSON.

Nothing has to be installed there; `deployer.remote` holds what runs on the machine.
"""

from __future__ import annotations

import json
import os
import shlex
import struct
from collections.abc import Iterator
from importlib import resources
from typing import Any

from deployer.errors import MachineError
from deployer.ssh.exchange import Exchange
from deployer.ssh.session import Session, remote_command

SILENCE_S = 600.0
"""A machine that hashes or syncs a large tree may be silent this long."""

# What the machine's Python is given by -c: it reads two modules' texts from standard input. Words 1 and 2: their sizes.
_LOADER = """\
import sys, types
for name in ("deployer", "deployer.remote", "deployer.remote.tree"):
    sys.modules[name] = types.ModuleType(name)
for name in ("deployer.remote.tree", "__main__"):
    text = sys.stdin.buffer.read(int(sys.argv.pop(1)))
    exec(compile(text, "fedspan:" + name, "exec"), sys.modules[name].__dict__)
"""


def begin(session: Session, argv: list[str], python: str, prefix: tuple[str, ...]) -> Exchange:
    """Start `deployer.remote.transfer` on the machine with these words. Raises UnreachableError."""
    package = resources.files("deployer.remote")
    texts = [package.joinpath(name).read_bytes() for name in ("tree.py", "transfer.py")]
    sizes = [str(len(text)) for text in texts]
    exchange = session.open(remote_command([*prefix, python, "-I", "-c", _LOADER, *sizes, *argv]))
    try:
        for text in texts:
            exchange.write(text)
    except BaseException:
        exchange.close()
        raise
    return exchange


def read_answer(session: Session, exchange: Exchange, remote: str) -> dict[str, Any]:
    """The machine's next answer. Raises MachineError with what it says is wrong."""
    head = exchange.read_exactly(8, SILENCE_S)
    if len(head) < 8:
        status = exchange.status()
        said = _drain_errors(exchange)
        raise MachineError(
            f"{remote} was not written: the command on the machine ended with status {status}",
            participant=session.name,
            why=said or None,
            next_step=f"the same command again; fedspan ssh {session.name} shows the machine",
        )
    (size,) = struct.unpack(">Q", head)
    answer: dict[str, Any] = json.loads(exchange.read_exactly(size, SILENCE_S))
    if answer["state"] == "error":
        why = str(answer["why"])  # it mostly names the path itself: not twice
        raise MachineError(
            why if remote in why else f"{remote}: {why}",
            participant=session.name,
            next_step=f"fedspan ssh {session.name} -- ls -ld {shlex.quote(os.path.dirname(remote) or '/')}",
        )
    return answer


def _drain_errors(exchange: Exchange) -> str:
    pieces: list[bytes] = list(_pieces(exchange))
    lines = b"".join(pieces).decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-5:])


def _pieces(exchange: Exchange) -> Iterator[bytes]:
    while exchange.channel.recv_stderr_ready():
        yield exchange.channel.recv_stderr(1 << 16)
