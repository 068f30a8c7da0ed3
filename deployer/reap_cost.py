"""What a thing that nobody knows of has cost so far, by the list prices that plans are made with. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from deployer.plan import VM_TYPES
from deployer.settle.model import Found
from stacks.catalogue import price
from stacks.extras import HOURS_A_MONTH, address_usd_hour, disk_usd_month
from stacks.names import Cloud

DISKS = ("aws:ebs/volume:Volume", "azure-native:compute:Disk")
ADDRESSES = ("aws:ec2/eip:Eip", "azure-native:network:PublicIPAddress")


def usd_hour(thing: Found) -> float | None:
    """What it costs an hour; 0 for what is free, None where nobody knows."""
    cloud: Cloud = "aws" if thing.cloud == "aws" else "azure"
    if thing.type in VM_TYPES:
        return price(cloud, thing.size) if thing.size else None
    if thing.type in DISKS:
        month = disk_usd_month(cloud, thing.gib) if thing.gib else None
        return None if month is None else month / HOURS_A_MONTH
    return address_usd_hour(cloud) if thing.type in ADDRESSES else 0.0


def usd_so_far(thing: Found, among: Iterable[Found], now: datetime | None = None) -> float | None:
    """What it has cost since it was made; what has no date of its own counts from the oldest of its companions.

    None where the price or every date is unknown.
    """
    hourly = usd_hour(thing)
    if not hourly:
        return hourly
    dates = [other.created for other in among if other.created is not None]
    since = thing.created or (min(dates) if dates else None)
    if since is None:
        return None
    hours = ((now or datetime.now(timezone.utc)) - since.astimezone(timezone.utc)).total_seconds() / 3600
    return hourly * max(0.0, hours)
