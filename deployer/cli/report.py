"""How an error reaches the user: one clear message on standard error, and an exit code. Codes: docs/errors.md."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

from deployer.cli.arguments import GlobalOptions

UNEXPECTED = 1
USAGE = 2
INTERRUPTED = 130


def usage(message: str) -> int:
    """A command line that click can't be asked about."""
    sys.stderr.write(f"Error: {message}\n  next: fedspan --help\n")
    return USAGE


def document(error: BaseException) -> dict[str, Any]:
    """An error as JSON: type, what, participant, resource, why, next, log, exit_code."""
    fields = {
        "what": getattr(error, "what", None) or str(error),
        "participant": getattr(error, "participant", None),
        "resource": getattr(error, "resource", None),
        "why": getattr(error, "why", None),
        "next": getattr(error, "next_step", None),
        "log": getattr(error, "log", None),
    }
    return {
        "error": type(error).__name__,
        **{name: value for name, value in fields.items() if value is not None},
        "exit_code": exit_code(error),
    }


def exit_code(error: BaseException) -> int:
    """The exit code for an error; those of fedspan and of the runtime carry theirs."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    code = getattr(error, "exit_code", None)
    return code if isinstance(code, int) else UNEXPECTED


def report(error: BaseException, options: GlobalOptions) -> int:
    """Tell `error` and return its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else UNEXPECTED
    if type(error).__name__ == "Abort":  # click's: end of input or Ctrl-C at a question
        error = KeyboardInterrupt()
    show = getattr(error, "show", None)
    ours = hasattr(error, "what") and hasattr(error, "exit_code")
    if show is not None and not ours:  # click's usage errors know how to show themselves
        show()
        return exit_code(error)
    if options.json:
        sys.stdout.write(json.dumps(document(error), default=str) + "\n")
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
    elif ours:
        sys.stderr.write(f"error: {error}\n")
    elif isinstance(error, BrokenPipeError):
        return UNEXPECTED
    elif isinstance(error, ModuleNotFoundError) and (extra := _extra(error)):
        from deployer.errors import MissingToolError

        return report(
            MissingToolError(
                f"{error.name} is not installed",
                why=f"this command needs the extra `{extra}`",
                next_step=f"pip install 'fedspan[{extra}]'",
            ),
            options,
        )
    else:
        sys.stderr.write(f"error: {type(error).__name__}: {error}\n  this is a bug; -v shows where\n")
    if options.verbose:
        traceback.print_exception(type(error), error, error.__traceback__)
    return exit_code(error)


# package -> the extra of the distribution that brings it
EXTRAS = {
    "pulumi": "cloud",
    "pulumi_aws": "cloud",
    "pulumi_azure_native": "cloud",
    "paramiko": "cloud",
    "boto3": "cloud",
    "botocore": "cloud",
    "azure": "cloud",
    "moto": "sandbox",
    "asyncssh": "sandbox",
    "flask": "sandbox",
    "flask_cors": "sandbox",
    "sklearn": "demo",
    "matplotlib": "plot",
    "torch": "torch",
}


def _extra(error: ModuleNotFoundError) -> str | None:
    return EXTRAS.get((error.name or "").partition(".")[0])
