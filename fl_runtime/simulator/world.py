"""What a process has only once, swapped when a worker turns from one simulated site to another.

Random number generators, `sys.argv`, `sys.path`, `__main__`, the modules of the job's own folder, the working folder,
the environment, the root logger's handlers, where output goes, and the Client API's session. A site that starts finds
what a new process would find: generators with seeds from the system's entropy, none of another site's numbers.
"""

from __future__ import annotations

import logging
import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import numpy as np

import fl_runtime.client as client
from fl_runtime.client.session import Session

CUDA_SEED = 67280421310721  # what torch's CUDA generators hold in a new process (c10 default_rng_seed_val)


class Output:
    """`sys.stdout` and `sys.stderr` of a worker: it writes to the log of the site that is active.

    It stays in place, so that logging handlers that hold it follow the switch too.
    """

    encoding, errors = "utf-8", "replace"

    def __init__(self, idle: TextIO) -> None:
        self._idle = idle
        self.target: TextIO = idle

    def idle(self) -> None:
        if self.target is not self._idle:
            self.target.close()
            self.target = self._idle

    def write(self, text: str) -> int:
        return self.target.write(text)

    def writelines(self, lines: Any) -> None:
        self.target.writelines(lines)

    def flush(self) -> None:
        self.target.flush()

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self.target.fileno()

    def writable(self) -> bool:
        return True


@dataclass
class World:
    """One site's."""

    folder: Path
    script: Path
    args: tuple[str, ...]
    log: Path
    session: Session | None = None
    main: ModuleType | None = None
    started: bool = False
    argv: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    cwd: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    modules: dict[str, ModuleType] = field(default_factory=dict)
    handlers: list[logging.Handler] = field(default_factory=list)
    level: int = logging.WARNING
    random: Any = None
    numpy: Any = None
    torch: Any = None
    cuda: Any = None


class Switch:
    """Enters and leaves worlds; made once in a worker, before its first site."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._path, self._cwd = list(sys.path), os.getcwd()
        self._environ = dict(os.environ)
        self._main = sys.modules.get("__main__")
        self._handlers, self._level = list(logging.root.handlers), logging.root.level
        self._foreign: set[str] = set()  # names of modules that are no site's own

    def fresh(self, world: World) -> None:
        """What a new process would begin with; also for a script that is started again."""
        world.main = ModuleType("__main__")
        world.main.__file__ = str(world.script)
        world.argv = [str(world.script), *world.args]
        world.path = [str(world.script.parent), *self._path]
        world.cwd = str(world.folder)
        world.environ = dict(self._environ)
        world.modules, world.handlers, world.level = {}, list(self._handlers), self._level
        world.random = world.numpy = world.torch = world.cuda = None

    def enter(self, world: World) -> None:
        """Make this site the active one."""
        if not world.started:
            world.started = True
            self.fresh(world)
        sys.argv, sys.path[:] = world.argv, world.path
        if world.main is not None:
            sys.modules["__main__"] = world.main
        sys.modules.update(world.modules)
        os.chdir(world.cwd)
        _set_environ(world.environ)
        logging.root.handlers[:], logging.root.level = world.handlers, world.level
        self._output.target = open(world.log, "a", buffering=1, encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by idle()
        client._session = world.session
        if world.random is None:
            random.seed()
        else:
            random.setstate(world.random)
        if world.numpy is None:
            np.random.seed()
        else:
            np.random.set_state(world.numpy)
        self._enter_torch(world)

    def leave(self, world: World) -> None:
        """Keep what this site has; the next one enters."""
        world.argv, world.path = sys.argv, list(sys.path)
        world.cwd, world.environ = os.getcwd(), dict(os.environ)
        world.modules = self._take_modules(world.folder)
        world.handlers, world.level = list(logging.root.handlers), logging.root.level
        world.session = client._session
        world.random, world.numpy = random.getstate(), np.random.get_state()
        self._leave_torch(world)
        self._output.idle()
        if self._main is not None:
            sys.modules["__main__"] = self._main
        os.chdir(self._cwd)

    def _take_modules(self, folder: Path) -> dict[str, ModuleType]:
        """The modules that came from the job's own folder, out of `sys.modules`: the next site imports its own."""
        inside = str(folder) + os.sep
        own = {}
        for name in sys.modules.keys() - self._foreign:
            module = sys.modules[name]
            file = module.__dict__.get("__file__") if isinstance(module, ModuleType) else None
            if name != "__main__" and isinstance(file, str) and file.startswith(inside):
                own[name] = module
            else:
                self._foreign.add(name)
        for name in own:
            del sys.modules[name]
        return own

    def _enter_torch(self, world: World) -> None:
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "default_generator"):
            return
        if world.torch is None:
            torch.default_generator.seed()  # from the system's entropy, as torch does it
        else:
            torch.set_rng_state(world.torch)
        if torch.cuda.is_initialized():
            if world.cuda is None:
                torch.cuda.manual_seed_all(CUDA_SEED)
            else:
                torch.cuda.set_rng_state_all(world.cuda)

    def _leave_torch(self, world: World) -> None:
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "default_generator"):
            return
        world.torch = torch.get_rng_state()
        if torch.cuda.is_initialized():
            world.cuda = torch.cuda.get_rng_state_all()


def _set_environ(wanted: dict[str, str]) -> None:
    if dict(os.environ) == wanted:
        return
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)
