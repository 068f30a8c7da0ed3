"""The timer that ends a machine at a given time, as text. Pure: `systemd-analyze` accepts it (a test asks it).

Installed, so that it is there after a reboot; with an absolute date, so that no reboot moves it. A machine that boots
after that date ends a few minutes later, whether it was off when it came or has ended once already: systemd's own
`Persistent=` would end it at once, before anybody could give it another end, and the second time not at all. No
controller has to live for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timezone

from deployer.durations import parse_duration
from deployer.errors import UsageError
from deployer.unit_file import UNITS, unit_word

NAME = "fedspan-expiry"
TIMER, SERVICE = f"{NAME}.timer", f"{NAME}.service"
TIMER_PATH, SERVICE_PATH = f"{UNITS}/{TIMER}", f"{UNITS}/{SERVICE}"

SHORTEST_S = 60
"""A machine must live long enough to be installed."""

LONGEST_S = 366 * 86400

GRACE_S = 180
"""How long a machine that is turned on after its end stays on, for somebody to log in and give it another one."""


def parse_ttl(text: str) -> float:
    """`90m`, `8h`, `3d` in seconds.

    Raises:
        UsageError: no such duration, or one that is too short or too long.
    """
    seconds = parse_duration(text)
    if seconds is None or not SHORTEST_S <= seconds <= LONGEST_S:
        raise UsageError(f"{text!r} is no time to live", next_step="90m, 8h or 3d: a minute to a year")
    return seconds


def daily(at: float) -> str:
    """An end as Azure's daily shutdown takes it, `HHMM` in UTC: its clock has minutes, and it deallocates at the end of
    the expiry's own minute, when the machine has powered itself off."""
    return time.strftime("%H%M", time.gmtime(at + 59))


def stamp(at: float) -> str:
    """`2026-11-30T05:00:00Z`: what stacks, ledger and people read. Whole seconds."""
    return datetime.fromtimestamp(int(at), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> float:
    """A `stamp` read back: seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def calendar(at: float) -> str:
    """`2026-11-30 05:00:00 UTC`: what systemd reads."""
    return datetime.fromtimestamp(int(at), timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def timer_text(at: float) -> str:
    """The timer's unit."""
    return f"""\
# Written by fedspan; `fedspan extend` writes it anew.
[Unit]
Description=fedspan: the end of this machine

[Timer]
OnCalendar={calendar(at)}
OnBootSec={GRACE_S}s
AccuracySec=1s
Unit={SERVICE}

[Install]
WantedBy=timers.target
"""


def off_command(deallocate: Sequence[str] = ()) -> str:
    """How a machine turns itself off, as lines of a oneshot service: the runtime ends in order, then it is off.

    `deallocate`: a command that asks the machine's cloud first; it may take minutes, and fail.
    """
    first = [f"ExecStart=-{' '.join(unit_word(word) for word in deallocate)}"] if deallocate else []
    return "\n".join([*first, "ExecStart=/usr/bin/systemctl --no-block poweroff"])


def service_text(at: float, deallocate: Sequence[str] = ()) -> str:
    """The unit that the timer starts: if its time has come the machine turns itself off; see `off_command`."""
    return f"""\
# Written by fedspan.
[Unit]
Description=fedspan: this machine has reached its end

[Service]
Type=oneshot
ExecCondition=/bin/sh -c '[ $$(date +%%s) -ge {int(at)} ]'
{off_command(deallocate)}
"""
