"""The part of systemd's timers that a sandbox machine plays: powering itself off, at an absolute date or when idle.

A timer in `/etc/systemd/system` with `OnCalendar=YYYY-MM-DD HH:MM:SS UTC` and `OnBootSec=`, whose unit's command is
`systemctl poweroff` on the condition that a date has come, is obeyed: at that time, and so long after a boot that comes
later. One with `OnBootSec=` and `OnUnitInactiveSec=`, whose unit's command is that on the condition of a line of shell,
is obeyed too: the line is run as often, and decides. All others are not.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

UNITS = "etc/systemd/system"
_DATE = re.compile(r"(?m)^OnCalendar=(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC$")
_AFTER_BOOT = re.compile(r"(?m)^OnBootSec=(\d+)s$")
_POWEROFF = re.compile(r"(?m)^ExecStart=\S*systemctl (?:--no-block )?poweroff$")
_AGAIN = re.compile(r"(?m)^OnUnitInactiveSec=(\d+)s$")
_LINE = re.compile(r"(?m)^ExecCondition=/bin/sh -c '([^'\n]+)'$")
_LINE_S = 10.0
_CONDITION = re.compile(r"(?m)^ExecCondition=/bin/sh -c '\[ \$\$\(date \+%%s\) -ge \d+ \]'$")


def end_of(root: Path, booted: float = 0.0) -> float | None:
    """When the machine under `root`, on since `booted`, powers itself off, seconds since the epoch; None: never."""
    ends = []
    for timer, service in _units(root):
        date, after_boot = _DATE.search(timer), _AFTER_BOOT.search(timer)
        if date and after_boot and _POWEROFF.search(service) and _CONDITION.search(service):
            end = datetime.strptime(date[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
            ends.append(end if booted < end else booted + int(after_boot[1]))
    return min(ends) if ends else None


@dataclass(frozen=True)
class Repeated:
    """A line of shell that decides whether the machine is powered off: first so long after a boot, then so often."""

    line: str
    first_s: int
    every_s: int

    def says_off(self, root: Path) -> bool:
        """Run it on the machine under `root`; it blocks, for it takes milliseconds."""
        argv, env = ["/bin/sh", "-c", self.line], {"FEDSPAN_ROOT": str(root), "PATH": "/usr/bin:/bin"}
        try:
            done = subprocess.run(argv, env=env, cwd=root, timeout=_LINE_S, capture_output=True)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def repeated(root: Path) -> Repeated | None:
    """The machine's timer that looks again and again, None where it has none."""
    for timer, service in _units(root):
        first, again, line = _AFTER_BOOT.search(timer), _AGAIN.search(timer), _LINE.search(service)
        if first and again and line and _POWEROFF.search(service):
            # systemd reads both doubled
            return Repeated(line[1].replace("%%", "%").replace("$$", "$"), int(first[1]), int(again[1]))
    return None


def _units(root: Path) -> Iterator[tuple[str, str]]:
    """Each timer's text, with its service's."""
    for path in (root / UNITS).glob("*.timer"):
        try:
            timer = path.read_text()
            named = re.search(r"(?m)^Unit=(\S+)$", timer)
            service = path.with_name(named[1] if named else path.stem + ".service").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        yield timer, service
