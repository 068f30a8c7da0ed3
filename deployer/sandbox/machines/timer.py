"""The part of systemd's timers that a sandbox machine plays: powering itself off at an absolute date.

A timer in `/etc/systemd/system` with `OnCalendar=YYYY-MM-DD HH:MM:SS UTC` and `OnBootSec=`, whose unit's command is
`systemctl poweroff` on the condition that a date has come, is obeyed: at that time, and so long after a boot that comes
later. All others are not.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

UNITS = "etc/systemd/system"
_DATE = re.compile(r"(?m)^OnCalendar=(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC$")
_AFTER_BOOT = re.compile(r"(?m)^OnBootSec=(\d+)s$")
_POWEROFF = re.compile(r"(?m)^ExecStart=\S*systemctl (?:--no-block )?poweroff$")
_CONDITION = re.compile(r"(?m)^ExecCondition=/bin/sh -c '\[ \$\$\(date \+%%s\) -ge \d+ \]'$")


def end_of(root: Path, booted: float = 0.0) -> float | None:
    """When the machine under `root`, on since `booted`, powers itself off, seconds since the epoch; None: never."""
    ends = []
    for path in (root / UNITS).glob("*.timer"):
        try:
            timer = path.read_text()
            named = re.search(r"(?m)^Unit=(\S+)$", timer)
            service = path.with_name(named[1] if named else path.stem + ".service").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        date, after_boot = _DATE.search(timer), _AFTER_BOOT.search(timer)
        if date and after_boot and _POWEROFF.search(service) and _CONDITION.search(service):
            end = datetime.strptime(date[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
            ends.append(end if booted < end else booted + int(after_boot[1]))
    return min(ends) if ends else None
