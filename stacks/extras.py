"""What a machine's disks and its address list at, beside the machine itself: `extras.csv`, dated like the catalogue.

AWS bills gp3 by the GiB; Azure bills a premium disk as the next larger of its tiers. Addresses are billed by the hour.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.resources import files

from stacks.names import Cloud

HOURS_A_MONTH = 730
"""As both clouds count when they turn a monthly price into an hourly one."""


@lru_cache(maxsize=1)
def _rows() -> tuple[dict[str, str], ...]:
    text = files("stacks").joinpath("extras.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def disk_usd_month(cloud: Cloud, gib: int) -> float | None:
    """List price of one disk in USD a month; None where it is larger than every tier that is known."""
    rows = [row for row in _rows() if row["cloud"] == cloud and row["unit"] == "month"]
    if cloud == "aws":
        return gib * float(rows[0]["usd"])
    fitting = [row for row in rows if int(row["gib"]) >= gib]
    return float(min(fitting, key=lambda row: int(row["gib"]))["usd"]) if fitting else None


def address_usd_hour(cloud: Cloud) -> float:
    """List price of one static public IPv4 address in USD an hour."""
    return next(float(row["usd"]) for row in _rows() if row["cloud"] == cloud and row["item"] == "address")


def extras_usd_hour(cloud: Cloud, *disks_gib: int) -> float | None:
    """One address and these disks together in USD an hour; None where a disk's price is unknown."""
    months = [disk_usd_month(cloud, gib) for gib in disks_gib]
    known = [month for month in months if month is not None]
    if len(known) < len(months):
        return None
    return address_usd_hour(cloud) + sum(known) / HOURS_A_MONTH
