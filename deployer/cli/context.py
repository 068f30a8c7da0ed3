"""What a command's function needs from the command line: the global options, the screen, questions.

from deployer.cli import context

def verb(...):
    options = context.options()
    workspace = context.workspace()
    context.say("text")
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deployer.cli.arguments import GlobalOptions
from deployer.errors import RefusedError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from startup_kits.workspace import Workspace

_options = GlobalOptions()
_console: Console | None = None
_quiet = False

SANDBOX_HEADER = (
    "sandbox: AWS, Azure, the Pulumi engine and the machines are emulated here; "
    "rules: {rules}; no GPUs; nothing costs money"
)
RULES = {"process": "checked, not packet-filtered", "nspawn": "filtered by nftables"}
"""What the driver of the machines does with security rules."""


def configure(options: GlobalOptions) -> None:
    """Set the global options of this process; called once, before the verb."""
    global _options
    _options = options


def options() -> GlobalOptions:
    """The global options of the running command."""
    return _options


def console() -> Console:
    """The screen: standard output, or standard error where standard output carries JSON."""
    global _console
    if _console is None:
        from rich.console import Console

        _console = Console(stderr=_options.json, highlight=False, soft_wrap=True, emoji=False)  # AB:CD:EF is no picture
        if not _console.is_terminal:
            _console.width = 160  # nobody's window: tables need not be squeezed
    return _console


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, `say` prints nothing: for a command that is a step of a larger one."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def say(what: RenderableType = "") -> None:
    """Print for people. Text is printed as it is (no markup); tables and the like as rich draws them."""
    if _quiet:
        return
    console().print(what, markup=False)


def emit(document: Any) -> None:
    """Print one JSON document, a line of its own, on standard output."""
    sys.stdout.write(json.dumps(document, default=str) + "\n")
    sys.stdout.flush()


# verbs whose standard output is data for other programs, or that tell what is emulated in words of their own
DATA_VERBS = {"sandbox", "ssh", "logs"}
OWN_HEADER = {"demo"}


def header(verb: str) -> None:
    """The one line that says what is emulated, at the top of every screen in sandbox mode."""
    if not _options.sandbox or _options.json or verb in OWN_HEADER:
        return
    from deployer.sandbox.state import SandboxState, home_folder

    state = SandboxState.load(home_folder())
    text = SANDBOX_HEADER.format(rules=RULES[state.driver if state is not None else "process"])
    if verb in DATA_VERBS:
        sys.stderr.write(text + "\n")
    else:
        console().print(text, style="bold yellow", markup=False)


def workspace() -> Workspace:
    """The folder of the federation that this command is about (`-f`, else here or above)."""
    from startup_kits.workspace import Workspace

    return Workspace.find(_options.file)


def interactive() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask(prompt: str) -> str:
    """A line from the terminal. Ctrl-C at a question ends the command, whatever it means while engines run."""
    from deployer.cli.answers import answers

    with answers() as next_line:
        console().print(prompt, end="", markup=False)
        return next_line()


def confirm(question: str) -> None:
    """Ask; go on only with a yes.

    Raises:
        RefusedError: the answer was no, or nobody is there to answer and `--yes` was not given.
    """
    if _options.yes:
        return
    if _options.json or not interactive():
        raise RefusedError(
            "nobody is there to answer",
            why=f"the question was: {question}",
            next_step="add --yes to answer it beforehand",
        )
    answer = ask(f"{question} [y/N] ")
    if answer.strip().lower() not in {"y", "yes"}:
        raise RefusedError("not done", why="the answer was no", next_step="the same command again asks again")
