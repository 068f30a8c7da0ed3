"""`python -m fl_runtime serve|version|status|stop|supervise`: what start.sh, systemd and the deployer call."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fl_runtime.errors import FlError


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise FlError(f"--label {pair!r} is not KEY=VALUE")
        labels[key] = value
    return labels


def _store(url: str | None) -> str | None:
    if url and urlsplit(url).password:
        raise FlError(
            "A password does not belong on a command line",
            why="everybody on this machine can read it there",
            next_step="put `store: URL` into local/store.yml of the kit, or the password into ~/.pgpass",
        )
    return url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fl_runtime", description="The runtime of one participant.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    serve = verbs.add_parser("serve", help="run the server or the site that the kit is for, in the foreground")
    serve.add_argument("--kit", type=Path, required=True)
    serve.add_argument("--state", type=Path, required=True)
    serve.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    serve.add_argument(
        "--store",
        metavar="URL",
        help="a server's PostgreSQL database (a password belongs in local/store.yml or ~/.pgpass)",
    )
    verbs.add_parser("version", help="print what this runtime is and speaks, as JSON")
    status = verbs.add_parser("status", help="print what the running process says, as JSON")
    status.add_argument("--state", type=Path, required=True)
    stop = verbs.add_parser("stop", help="stop the supervised process (or the one that serves) cleanly")
    stop.add_argument("--state", type=Path, required=True)
    stop.add_argument("--timeout", type=float, default=20.0, help="seconds until it is killed")
    supervise = verbs.add_parser("supervise", help="keep a command running: restarts, pid file, rotated log")
    supervise.add_argument("--state", type=Path, required=True)
    supervise.add_argument("--foreground", action="store_true", help="don't detach; the log goes to the terminal too")
    supervise.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND [ARG ...]")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        if options.verb == "serve":
            from fl_runtime.serve import serve

            return serve(options.kit, options.state, _labels(options.label), _store(options.store))
        if options.verb == "version":
            from fl_runtime.status import abilities

            print(json.dumps(abilities()))
            return 0
        if options.verb == "status":
            from fl_runtime.status import read_status

            found = read_status(options.state)
            print(json.dumps(found, indent=2))
            return 0 if found.get("running") else 3
        from fl_runtime import supervise

        if options.verb == "stop":
            return supervise.stop(options.state, options.timeout)
        command = options.command[1:] if options.command[:1] == ["--"] else options.command
        return supervise.supervise(options.state, command, foreground=options.foreground)
    except FlError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
