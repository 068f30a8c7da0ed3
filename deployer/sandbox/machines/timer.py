"""The part of systemd's timers that a sandbox machine plays: powering itself off at an absolute date.

A timer in `/etc/systemd/system` with `OnCalendar=YYYY-MM-DD HH:MM:SS UTC` and `Persistent=true`, whose unit's command
is `systemctl poweroff`, is obeyed: at that time, and at once on a machine that boots after it. All others are not.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

UNITS = "etc/systemd/system"
_DATE = re.compile(r"(?m)^OnCalendar=(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC$")
_PERSISTENT = re.compile(r"(?m)^Persistent=(?:true|yes|1)$")
_POWEROFF = re.compile(r"(?m)^ExecStart=\S*systemctl (?:--no-block )?poweroff$")


def end_of(root: Path) -> float | None:
    """When the machine under `root` powers itself off, seconds since the epoch; None: never."""
    ends = []
    for path in (root / UNITS).glob("*.timer"):
        try:
            timer = path.read_text()
            named = re.search(r"(?m)^Unit=(\S+)$", timer)
            service = path.with_name(named[1] if named else path.stem + ".service").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        date = _DATE.search(timer)
        if date and _PERSISTENT.search(timer) and _POWEROFF.search(service):
            ends.append(datetime.strptime(date[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp())
    return min(ends) if ends else None
