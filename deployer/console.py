"""The interactive console: words in, what `Session` does out. Completion and history by readline, where there is one.

The standard library's readline is enough for it: no package more in the base install, and a pipe works without it.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.ca_pins import state_home
from deployer.cli import context, jobs, sites
from deployer.cli.job_words import ENDED
from deployer.console_words import ALIASES, Command, Leave
from deployer.errors import UsageError

if TYPE_CHECKING:
    from fl_runtime.admin import Session

HISTORY_LINES = 1000
FRESH_S = 3.0  # names for completion are asked for again after this
PROMPT = "fedspan> "


class Console:
    """Reads commands until `quit` or the end of input."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: dict[str, tuple[float, list[str]]] = {}
        self.commands = {
            "sites": Command(self._sites, "sites", "who is connected"),
            "resources": Command(self._resources, "resources", "what each site has, and what of it is free"),
            "jobs": Command(self._jobs, "jobs", "all jobs, oldest first"),
            "submit": Command(self._submit, "submit FOLDER", "submit a job", ("path",), 1, 1),
            "clone": Command(self._clone, "clone JOB", "submit a job's bundle again, signed by you", ("job",), 1, 1),
            "show": Command(self._show, "show JOB", "everything about a job", ("job",), 1, 1),
            "monitor": Command(
                self._monitor, "monitor JOB", "follow a job to its end; Ctrl-C leaves it", ("job",), 1, 1
            ),
            "logs": Command(
                self._logs, "logs JOB [NAME] [-f]", "what its processes wrote; -f follows", ("job", "site"), 1, 3
            ),
            "download": Command(
                self._download, "download JOB [FOLDER]", "fetch model, metrics, plot, logs", ("job", "path"), 1, 2
            ),
            "abort": Command(self._abort, "abort JOB", "end a job now", ("job",), 1, 1),
            "delete": Command(self._delete, "delete JOB", "forget a job that has ended", ("job",), 1, 1),
            "restart": Command(self._restart, "restart SITE …", "have sites start again", ("site",), 1, None),
            "shutdown": Command(self._shutdown, "shutdown SITE …", "have sites stop", ("site",), 1, None),
            "help": Command(self._help, "help [COMMAND]", "this list", ("command",), 0, 1),
            "quit": Command(self._quit, "quit", "leave (Ctrl-D too)"),
        }

    # --- the loop

    def run(self) -> None:
        """Read and do. Interactive: errors are told and it goes on; from a pipe: the first one ends it."""
        if not context.interactive():
            with contextlib.suppress(Leave):
                for line in sys.stdin:
                    self.do(line)
            return
        context.say(f"{self._session.kit.name} at {self._session.kit.federation}; help lists the commands")
        with self._readline():
            while True:
                try:
                    line = input(PROMPT)
                except EOFError:
                    context.say()
                    return
                except KeyboardInterrupt:
                    context.say()
                    continue
                try:
                    self.do(line)
                except Leave:
                    return
                except KeyboardInterrupt:
                    context.say("interrupted")
                except Exception as error:
                    from deployer.cli.report import report

                    report(error, context.options())

    def do(self, line: str) -> None:
        """One line.

        Raises:
            UsageError: no such command, or other words than it takes.
            Leave: the console is to end.
        """
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UsageError(f"{line.strip()!r} can't be read", why=str(error), next_step="help") from None
        if not words:
            return
        name = ALIASES.get(words[0], words[0])
        command = self.commands.get(name)
        if command is None:
            near = difflib.get_close_matches(name, [*self.commands, *ALIASES], 1)
            raise UsageError(f"there is no command {words[0]!r}", next_step=f"{near[0]}" if near else "help")
        given = words[1:]
        if len(given) < command.least or (command.most is not None and len(given) > command.most):
            raise UsageError(f"{name} takes other words", why=f"usage: {command.usage}", next_step=f"help {name}")
        command.run(given)

    # --- completion and history

    @contextlib.contextmanager
    def _readline(self) -> Iterator[None]:
        try:
            import readline
        except ImportError:  # a Python built without it: input() does
            yield
            return
        path = state_home() / "admin-history"
        with contextlib.suppress(OSError):
            readline.read_history_file(path)
        readline.set_history_length(HISTORY_LINES)
        readline.set_completer_delims(" \t\n")
        readline.set_completer(self._complete)
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        try:
            yield
        finally:
            readline.set_completer(None)
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                readline.write_history_file(path)
                path.chmod(0o600)

    def _complete(self, text: str, state: int) -> str | None:
        import readline

        try:
            found = self.candidates(readline.get_line_buffer()[: readline.get_endidx()], text)
        except Exception:  # a server that is away must not break the line that is being typed
            found = []
        return found[state] if state < len(found) else None

    def candidates(self, line: str, text: str) -> list[str]:
        """What the word `text` at the end of `line` may become."""
        before = line[: len(line) - len(text)].split()
        if not before:
            return [f"{name} " for name in self.commands if name.startswith(text)]
        command = self.commands.get(ALIASES.get(before[0], before[0]))
        if command is None or not command.takes:
            return []
        kind = command.takes[min(len(before) - 1, len(command.takes) - 1)]
        if command.most is not None and len(before) > command.most:
            return []
        if kind == "path":
            found = sorted(glob.glob(os.path.expanduser(text) + "*"))
            return [f"{path}/" if os.path.isdir(path) else f"{path} " for path in found]
        return [f"{name} " for name in self._known(kind) if name.startswith(text)]

    def _known(self, kind: str) -> list[str]:
        if kind == "command":
            return list(self.commands)
        asked, names = self._names.get(kind, (0.0, []))
        if time.monotonic() - asked > FRESH_S:
            if kind == "job":
                names = [str(job["id"]) for job in reversed(self._session.jobs())]
            else:
                names = ["server", *self._session.sites()]
            self._names[kind] = (time.monotonic(), names)
        return names

    # --- commands

    def _sites(self, words: list[str]) -> None:
        table = self._session.sites()
        _tell(table, sites.sites_table(table) if table else "no site has registered yet")

    def _resources(self, words: list[str]) -> None:
        table = self._session.resources()
        _tell(table, sites.resources_table(table) if table else "no site is connected")

    def _jobs(self, words: list[str]) -> None:
        table = self._session.jobs()
        _tell(table, jobs.jobs_table(table) if table else "no jobs")

    def _submit(self, words: list[str]) -> None:
        job = self._session.submit(Path(words[0]).expanduser())
        _tell({"job": job}, f"{job} submitted; monitor {job}")

    def _clone(self, words: list[str]) -> None:
        with jobs.about():
            job = self._session.clone(words[0])
        _tell({"job": job, "of": words[0]}, f"{job} submitted; monitor {job}")

    def _show(self, words: list[str]) -> None:
        with jobs.about():
            jobs.tell_view(self._session.show(words[0]))

    def _monitor(self, words: list[str]) -> None:
        with jobs.about():
            self._session.show(words[0])
        jobs.follow(self._session, words[0])

    def _logs(self, words: list[str]) -> None:
        follow = "-f" in words
        named = [word for word in words if word != "-f"]
        if not 1 <= len(named) <= 2:
            raise UsageError("logs takes other words", why="usage: logs JOB [NAME] [-f]", next_step="help logs")
        with jobs.about():
            self._session.show(named[0])
            jobs.tell_logs(self._session.logs(named[0], named[1] if len(named) > 1 else None, follow=follow))

    def _download(self, words: list[str]) -> None:
        with jobs.about():
            path = self._session.download(words[0], Path(words[1]).expanduser() if len(words) > 1 else Path("results"))
        jobs.tell_results(words[0], path)

    def _abort(self, words: list[str]) -> None:
        with jobs.about():
            view = self._session.abort(words[0])
        _tell(view, f"{words[0]}: {str(view['state']).lower()}")

    def _delete(self, words: list[str]) -> None:
        with jobs.about():
            view = self._session.show(words[0])
        if view["state"] in ENDED:
            context.confirm(f"Delete {words[0]} with its models and logs?")
        self._session.delete(words[0])
        _tell({"job": words[0], "deleted": True}, f"{words[0]}: deleted")

    def _restart(self, words: list[str]) -> None:
        self._order("restart", self._session.restart(*words))

    def _shutdown(self, words: list[str]) -> None:
        context.confirm(f"Shut down {', '.join(words)}? Their owners have to start them again.")
        self._order("shutdown", self._session.shut_down(*words))

    def _order(self, action: str, told: dict[str, dict[str, Any]]) -> None:
        lines = [f"{name}: {sites.order_in_words(action, answer)}" for name, answer in told.items()]
        _tell(told, "\n".join(lines))

    def _help(self, words: list[str]) -> None:
        if words:
            command = self.commands.get(ALIASES.get(words[0], words[0]))
            if command is None:
                raise UsageError(f"there is no command {words[0]!r}", next_step="help")
            context.say(f"{command.usage}\n  {command.help}")
            return
        for command in self.commands.values():
            context.say(f"  {command.usage:<24} {command.help}")

    def _quit(self, words: list[str]) -> None:
        raise Leave


def _tell(document: Any, words: Any) -> None:
    if context.options().json:
        context.emit(document)
    else:
        context.say(words)
