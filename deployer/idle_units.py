"""The timer that turns a machine off when no job ran on it for so long, as text. Pure: `systemd-analyze` accepts it.

Every minute a line of shell looks whether the site's agent has touched its mark since the last look (it does so while
it has a job, see `fl_runtime.agent.busy`). What counts is *that* the mark changed, and the kernel's clock since boot:
no step of the wall clock turns anything off, or keeps it on. What is known so far lies in /run, so that a boot counts
anew. No controller has to live for it, and an agent that is down for so long ends the bill too.
"""

from __future__ import annotations

from collections.abc import Sequence

from deployer.expiry_units import off_command
from deployer.service import STATE
from deployer.unit_file import UNITS
from fl_runtime.names import BUSY_MARK

NAME = "fedspan-idle"
TIMER, SERVICE = f"{NAME}.timer", f"{NAME}.service"
TIMER_PATH, SERVICE_PATH = f"{UNITS}/{TIMER}", f"{UNITS}/{SERVICE}"
MARK_PATH = f"{STATE}/{BUSY_MARK}"

HOLD_PATH = "/run/fedspan-hold"
"""While it is there, somebody works on the machine by fedspan's commands."""

HOLD_MIN = 15
"""Minutes after which a hold that nobody has renewed or taken away counts no more: its command was killed."""

RENEW_S = 240
"""Seconds between two renewals."""

EVERY_S = 60
"""Seconds between two looks."""


def timer_text() -> str:
    """The timer's unit."""
    return f"""\
# Written by fedspan.
[Unit]
Description=fedspan: looks whether this machine is idle

[Timer]
OnBootSec={EVERY_S}s
OnUnitInactiveSec={EVERY_S}s
AccuracySec=1s
Unit={SERVICE}

[Install]
WantedBy=timers.target
"""


def service_text(idle_s: int, deallocate: Sequence[str] = ()) -> str:
    """The unit that the timer starts: if no job ran for `idle_s` seconds the machine is turned off (`off_command`).

    Its own words in the journal are notices; what systemd says of each look, which is less, is not kept.
    """
    return f"""\
# Written by fedspan; idle_stop in federation.yml says how long.
[Unit]
Description=fedspan: this machine was idle for too long

[Service]
Type=oneshot
SyslogLevel=notice
LogLevelMax=notice
ExecCondition=/bin/sh -c '{_in_unit(check_line(idle_s))}'
{off_command(deallocate)}
"""


def check_line(idle_s: int) -> str:
    """The shell's line: its status is 0 when the machine is to be turned off, 1 when not.

    $FEDSPAN_ROOT stands before every path and is empty on a machine of its own, as everywhere.
    """
    root = "$FEDSPAN_ROOT"
    note, hold = f'"{root}/run/fedspan-idle"', f'"{root}{HOLD_PATH}"'
    return "; ".join(
        (
            "read -r up _ </proc/uptime",
            "up=${up%.*}",
            f'seen=mark$(stat -c %Y "{root}{MARK_PATH}" 2>/dev/null)',
            f'[ -z "$(find {hold} -mmin -{HOLD_MIN} 2>/dev/null)" ] || seen=held$up',
            f"[ -r {note} ] && read -r since was <{note}",
            'if [ "${since:-$((up+1))}" -gt "$up" ] || [ "$was" != "$seen" ]',
            f'then since=$up && echo "$since $seen" >{note}',
            "fi",
            f"[ $((up-since)) -ge {idle_s} ] && echo no job ran here for {idle_s} seconds: turning off",
        )
    )


def _in_unit(line: str) -> str:
    """A line of shell as systemd reads it between single quotes."""
    assert "'" not in line, "it stands between them"
    return line.replace("%", "%%").replace("$", "$$")
