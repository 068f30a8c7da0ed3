"""Durations and times as users type them. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from deployer.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float | None:
    """`30s`, `10m`, `2h`, `1d` in seconds; None for anything else. Pure."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    return float(int(match[1]) * _UNITS[match[2]]) if match else None


def parse_since(text: str, now: datetime) -> datetime:
    """`30s`, `10m`, `2h`, `1d` ago, or a time in ISO 8601 (UTC unless it says otherwise).

    Raises:
        UsageError: neither.
    """
    if (seconds := parse_duration(text)) is not None:
        return now - timedelta(seconds=seconds)
    try:
        # Python 3.10's fromisoformat knows no Z.
        when = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
    except ValueError:
        raise UsageError(f"--since {text} is no time", next_step="--since 10m, or --since 2026-11-21T09:00") from None
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)
