"""The `pulumi` command as the Automation API calls it: in a session of its own, in exactly the realm's environment."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from pulumi.automation import CommandResult, PulumiCommand
from pulumi.automation.errors import create_command_error
from semver import VersionInfo

from deployer.engine_find import command_in
from deployer.errors import MissingToolError
from deployer.interrupts import Interrupts
from deployer.locks import forget_locks, note_lock
from deployer.realm import Realm

# the oldest `pulumi` with inline programs for destroy, and with project-mode file backends
MINIMUM_VERSION = VersionInfo(3, 181)

REPLACE = "fedspan engine install, then --pulumi with the path that it prints"

# commands that talk to a cloud; the others only read or write the stack's state
SECRETS = "--show-secrets"
OPERATIONS = frozenset({"up", "preview", "refresh", "destroy", "import"})
# commands that hold the stack's lock meanwhile
LOCKING = frozenset({"up", "refresh", "destroy", "import"})

# the SDK warns when an engine that was killed leaves its event stream open; what happened is told anyway
warnings.filterwarnings("ignore", message="Error in event stream")

_versions: dict[str, VersionInfo] = {}
_versions_lock = threading.Lock()


class EngineCommand(PulumiCommand):
    """Stands in the Automation API's place for starting `pulumi`.

    Differences: the environment is the realm's and nothing else (the SDK passes on everything of this process); the
    child gets a session of its own, so that Ctrl-C does not reach it twice; running children are known to
    `interrupts`; an operation gets its plugins attached first; what is written, but for secrets, goes into the log.
    """

    def __init__(
        self, realm: Realm, interrupts: Interrupts, name: str, log: IO[str], notes: Path | None = None
    ) -> None:
        self.command = str(command_in(realm.engine_root()))
        self.realm = realm
        self.interrupts = interrupts
        self.name = name
        self.log = log
        self.notes = notes
        """Where it is noted who holds the stack, where the backend's own locks can't be read."""
        self.version = _version(self.command, realm.engine_environment())

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
        given: str | None = None,
    ) -> CommandResult:
        """Run one command, `given` its standard input.

        Raises:
            CommandError: the Automation API's.
            Interrupted: it must not start any more.
        """
        words = args[: args.index("--")] if "--" in args else args
        if "--non-interactive" not in words:
            args = ["--non-interactive", *args]
        verb = next((word for word in args if not word.startswith("-")), "")
        operation = verb in OPERATIONS
        if operation:
            self.interrupts.check()
        attached: AbstractContextManager[dict[str, str]] = self.realm.plugins() if operation else nullcontext({})
        with attached as plugins:
            environment = {
                **self.realm.engine_environment(),
                **additional_env,
                **plugins,
                "PULUMI_AUTOMATION_API": "true",
            }
            # plugins bundled with the command lie beside it
            environment["PATH"] = os.pathsep.join([str(Path(self.command).parent), environment.get("PATH", os.defpath)])
            self.log.write(f"$ pulumi {' '.join(args)}\n")
            return self._run(args, cwd, environment, on_output, on_error, given)

    def _run(
        self,
        args: list[str],
        cwd: str,
        environment: dict[str, str],
        on_output: Callable[[str], Any] | None,
        on_error: Callable[[str], Any] | None,
        given: str | None,
    ) -> CommandResult:
        out: list[str] = []
        err: list[str] = []
        told = SECRETS not in args  # a checkpoint with its secrets in clear is for us, and for no file
        process = subprocess.Popen(
            [self.command, *args],
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environment,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        note = note_lock(self.notes, process.pid) if self.notes and not LOCKING.isdisjoint(args) else None
        with process, self.interrupts.engine(process.pid, self.name):
            readers = [
                threading.Thread(target=self._read, args=(process.stdout, out, on_output, told), daemon=True),
                threading.Thread(target=self._read, args=(process.stderr, err, on_error, True), daemon=True),
            ]
            for reader in readers:
                reader.start()
            if given is not None and process.stdin is not None:
                with suppress(BrokenPipeError), process.stdin as stdin:  # one that has failed says why
                    stdin.write(given)
            for reader in readers:
                reader.join()
            code = process.wait()
        if self.notes and note and code == 0:  # nobody else can hold it
            forget_locks(self.notes)
        elif note and code > 0 and self.interrupts.count < 2:  # else it was cut off, and has left its lock
            note.unlink()
        if code < 0:  # a killed child; the SDK's errors know positive codes only
            err.append(f"error: pulumi was ended by {signal.Signals(-code).name}")
            code = 128 - code
        result = CommandResult("\n".join(out), "\n".join(err), code)
        if code != 0:
            self.log.write(f"exit {code}\n")
            raise create_command_error(result)
        return result

    def _read(self, stream: IO[str], into: list[str], callback: Callable[[str], Any] | None, told: bool) -> None:
        for line in stream:
            text = line.rstrip()
            into.append(text)
            if told:
                self.log.write(text + "\n")
            if callback is not None:
                callback(text)


def _version(command: str, environment: dict[str, str]) -> VersionInfo:
    with _versions_lock:
        if command not in _versions:
            try:
                text = subprocess.run(
                    [command, "version"], env=environment, capture_output=True, text=True, check=True, timeout=60
                ).stdout.strip()
                _versions[command] = VersionInfo.parse(text.removeprefix("v"))
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                raise MissingToolError(f"{command} does not work", why=str(error), next_step=REPLACE) from error
        version = _versions[command]
    if version < MINIMUM_VERSION:
        raise MissingToolError(
            f"pulumi {version} is too old",
            why=f"at least {MINIMUM_VERSION} is needed ({command})",
            next_step=REPLACE,
        )
    return version
