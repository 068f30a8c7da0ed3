"""Whether this machine's clock agrees with the cloud's: signatures and certificates carry the time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from deployer.preflight.model import Finding
from deployer.preflight.place import NotAsked, Place, asking

WARN_S = 30
"""Certificates made here would not be valid yet on machines with the right time."""
REFUSE_S = 240
"""AWS refuses requests that are 5 minutes off (S3: 15); tokens of Azure are as strict."""


def check(place: Place) -> Iterable[Finding]:
    """By the `Date` of an answer, which has whole seconds."""
    if place.cloud == "aws":
        with asking("sts:GetCallerIdentity"):
            headers = place.aws("sts").get_caller_identity()["ResponseMetadata"]["HTTPHeaders"]
    else:
        with asking("Microsoft.Resources/subscriptions/read"):
            _, headers = place.azure.get("", "2022-12-01")
    text = headers.get("date") or headers.get("Date")
    if not text:
        raise NotAsked("the answer carries no date")
    yield judged(parsedate_to_datetime(text), datetime.now(timezone.utc))


def judged(theirs: datetime, ours: datetime) -> Finding:
    """How far they are apart, and what that means."""
    off = (ours - theirs).total_seconds()
    told = f"this machine's clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}"
    if abs(off) < WARN_S:
        return Finding("clock", "this machine's clock agrees with the cloud's")
    return Finding(
        "clock",
        told,
        "refused" if abs(off) >= REFUSE_S else "warning",
        why="signatures and certificates carry the time",
        next_step="timedatectl set-ntp true, or the site's own time server",
    )
