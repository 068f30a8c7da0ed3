"""The runtime's virtual environment on a machine: made from the bundle, named by its content, dropped when unused."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources

from deployer.bundle import Bundle
from deployer.errors import MachineError
from deployer.service import BUNDLE, OPT
from deployer.ssh.machine import Machine

INSTALL_DEADLINE_S = 600.0


@dataclass
class Installed:
    """What an installation did.

    Attributes:
        changed: the steps that changed something, in order; empty where everything was already so.
        seconds: wall time of each step that ran.
        sent_bytes: bytes of bundle and kit that went over the wire.
        bundle: the bundle that runs now.
        notes: what the operator should know, though it is no error.
    """

    bundle: Bundle
    changed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    sent_bytes: int = 0
    notes: list[str] = field(default_factory=list)


def environment_exists(machine: Machine, venv: str) -> bool:
    done = machine.run_privileged(environment_argv(machine, "check", venv), check=False, timeout_s=120)
    if done.status not in (0, 3):
        raise machine.failed(done)
    return done.status == 0


def environment_argv(machine: Machine, *words: str) -> list[str]:
    text = resources.files("deployer.remote").joinpath("environment.py").read_text(encoding="utf-8")
    return [machine.facts().python, "-I", "-c", text, *words]


def install(
    machine: Machine, bundle: Bundle, venv: str, done: Installed, clock: Clock, tell: Callable[[str, str], None]
) -> None:
    facts = machine.facts()
    folder = facts.path(BUNDLE)
    megabytes = bundle.size / 1e6
    tell("bundle", f"pushing {megabytes:.0f} MB")
    shown = -10

    def on_bytes(moved: int, total: int) -> None:
        nonlocal shown
        percent = 100 * moved // max(1, total)
        if percent >= shown + 10:
            shown = percent
            tell("bundle", f"pushing {total / 1e6:.0f} MB: {percent} %")

    pushed = machine.put_tree(bundle.folder, folder, privileged=True, durable=False, on_bytes=on_bytes)
    done.sent_bytes += pushed.sent_bytes
    clock.lap("push")
    tell("install", "installing the runtime")
    argv = environment_argv(machine, "install", venv, folder)
    installed = machine.run_privileged(argv, check=False, timeout_s=INSTALL_DEADLINE_S)
    if installed.status != 0:
        said = [line for line in installed.stderr.splitlines() if line.strip()]
        raise MachineError(
            "the runtime cannot be installed on the machine",
            participant=machine.name,
            why="\n".join(said[-5:]) or None,
            next_step=f"mend the cause there (fedspan ssh {machine.name}), then: fedspan up {machine.name}",
        )
    done.changed.append("bundle")
    clock.lap("install")


def drop_other_environments(machine: Machine, *kept: str) -> None:
    """Remove every environment but these: the one that runs, and the one before it for a rollback."""
    script = (
        'opt=$1; shift; for d in "$opt"/venv-*; do for k; do [ "$d" = "$k" ] && continue 2; done; rm -rf "$d"; done'
    )
    machine.run_privileged(["sh", "-c", script, "clean", machine.path(OPT), *kept])


class Clock:
    """Wall time by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, step: str) -> None:
        now = time.monotonic()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._last
        self._last = now
