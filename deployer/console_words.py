"""The words of the interactive console: what a command is, and other names for the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Leave(Exception):
    """The console ends."""


@dataclass(frozen=True)
class Command:
    """`takes`: what each further word is (job, site, path, participant), for completion; the last one repeats."""

    run: Callable[[list[str]], None]
    usage: str
    help: str
    takes: tuple[str, ...] = ()
    least: int = 0
    most: int | None = 0


# names that users of FLARE's console type
ALIASES = {
    "abort_job": "abort",
    "bye": "quit",
    "check_status": "sites",
    "clone_job": "clone",
    "delete_job": "delete",
    "download_job": "download",
    "exit": "quit",
    "list": "jobs",
    "list_jobs": "jobs",
    "ls": "jobs",
    "report_resources": "resources",
    "submit_job": "submit",
    "?": "help",
}
