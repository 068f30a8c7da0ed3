"""The `pulumi` command of the sandbox: which command line is which command.

Only commands that run a deployment load gRPC and the protocol; the rest answer from files, in about the time that the
interpreter takes to start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from .flags import Line, parse
from .problems import CommandFailed

VERSION_FLAGS = {"version", "--version"}
_DEPLOYMENTS = {
    "up": "update",
    "update": "update",
    "preview": "update",
    "pre": "update",
    "refresh": "refresh",
    "destroy": "destroy",
    "down": "destroy",
    "dn": "destroy",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors are one `error:` line on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _run(argv)
    except CommandFailed as error:
        sys.stderr.write(f"error: {error}\n")
        return error.code
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        return 130
    except BrokenPipeError:
        return 1


def entry() -> NoReturn:
    """The command's process: it ends when the command has, whatever gRPC threads still wait for a program that is
    gone.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # locks are given back, as after an interrupt
    code = main()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(argv: list[str]) -> int:
    from .state import VERSION

    if argv and argv[0] in VERSION_FLAGS:
        print(VERSION)
        return 0
    line = parse(argv, more_values=_more(argv), no_values=_fewer(argv))
    if "cwd" in line.flags:
        os.chdir(line.get("cwd"))
    verb = line.words[0] if line.words else "help"
    if verb == "version":
        print(VERSION)
        return 0
    if verb in {"help", ""} or line.has("help"):
        return _help(verb)
    if verb in _DEPLOYMENTS:
        return _deploy(verb, line)
    from . import commands

    command: Callable[[Line], int] | None = commands.COMMANDS.get(verb)
    if command is None:
        raise CommandFailed(f'unknown command "{verb}" for "pulumi"')
    line.words.pop(0)
    return command(line)


def _more(argv: list[str]) -> frozenset[str]:
    """`config set-all --plaintext KEY=VALUE` takes values where `config set --plaintext` takes none."""
    if "set-all" in argv:
        return frozenset({"plaintext", "secret", "json"})
    return frozenset()


def _fewer(argv: list[str]) -> frozenset[str]:
    return frozenset()


def _help(verb: str) -> int:
    print("The sandbox's stand-in for the pulumi command. It does what the Automation API asks of it:")
    print("  up, preview, refresh, destroy, cancel, stack …, config …, plugin ls, whoami, about, version")
    if verb in _DEPLOYMENTS:
        print(f"\nUsage: pulumi {verb} --client HOST:PORT [--stack NAME] [--event-log TARGET] [--target URN] …")
    return 0


def _deploy(verb: str, line: Line) -> int:
    from . import protos
    from .session import Session

    session = Session(Path.cwd(), os.environ)
    session.choose(line.get("stack"))
    session.unlock_soon()
    protos.prepare()
    from .asked import Request
    from .generator import Options
    from .operation import run
    from .targets import Urns

    replaces = [*line.all("replace"), *line.all("target-replace")]
    options = Options(
        Urns([*line.all("target"), *line.all("target-replace")]),
        Urns(line.all("exclude")),
        Urns(replaces),
        line.has("target-dependents"),
        line.has("exclude-dependents"),
        line.has("exclude-protected"),
    )
    preview = verb in {"preview", "pre"} or line.has("preview-only")
    request = Request(
        _DEPLOYMENTS[verb],
        preview=preview,
        client=line.get("client"),
        event_log=line.get("event-log"),
        parallel=line.number("parallel"),
        refresh=line.has("refresh"),
        clear_pending_creates=line.has("clear-pending-creates"),
        continue_on_error=line.has("continue-on-error"),
        expect_no_changes=line.has("expect-no-changes"),
        debug=line.has("debug"),
        suppress_outputs=line.has("suppress-outputs"),
        message=line.get("message"),
        exec_kind=line.get("exec-kind"),
        plan=line.get("plan") if not preview else "",
        save_plan=line.get("save-plan"),
        run_program=line.has("run-program"),
        options=options,
        flags=sorted(line.flags),
    )
    code = run(session, request)
    if code == 0 and verb in {"destroy", "down", "dn"} and line.has("remove") and not preview:
        from .stacks import remove

        remove(session, session.stack, force=False)
    return code
