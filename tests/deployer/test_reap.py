"""What reap tells of costs, and where it looks. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from deployer.member import Member
from deployer.reap import seats
from deployer.reap_cost import usd_hour, usd_so_far
from deployer.settle.model import Found
from stacks.catalogue import price

NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
MACHINE = Found("aws", "aws:ec2/instance:Instance", "i-1", "site-1-vm", "eu-central-1", size="m7i.large",
                created=NOW - timedelta(hours=10))  # fmt: skip
VOLUME = Found("aws", "aws:ebs/volume:Volume", "vol-1", "site-1-state", "eu-central-1", gib=32,
               created=NOW - timedelta(hours=20))  # fmt: skip
ADDRESS = Found("aws", "aws:ec2/eip:Eip", "eipalloc-1", "site-1-address", "eu-central-1")
NETWORK = Found("aws", "aws:ec2/vpc:Vpc", "vpc-1", "site-1-vpc", "eu-central-1")
ALL = [MACHINE, VOLUME, ADDRESS, NETWORK]


def test_a_machine_costs_its_list_price_since_it_was_made() -> None:
    hourly = price("aws", "m7i.large")
    assert hourly is not None
    assert usd_so_far(MACHINE, ALL, NOW) == pytest.approx(10 * hourly)


def test_an_address_counts_from_its_oldest_companion_as_it_has_no_date() -> None:
    assert usd_so_far(ADDRESS, ALL, NOW) == pytest.approx(20 * 0.005)
    assert usd_so_far(ADDRESS, [ADDRESS], NOW) is None


def test_a_network_is_free_and_an_unknown_size_is_unknown() -> None:
    assert usd_so_far(NETWORK, ALL, NOW) == 0
    assert usd_hour(replace(MACHINE, size="m99.huge")) is None
    assert usd_so_far(replace(MACHINE, size="m99.huge"), ALL, NOW) is None


def test_every_account_and_region_is_looked_into_once() -> None:
    site = Member("site-1", "site", "aws", Path("k"), region="eu-central-1", fallback_regions=("eu-west-1",))
    other = replace(site, name="site-2", profile="hospital-b")
    azure = Member("server", "server", "azure", Path("k"), region="westeurope")
    kit = Member("site-3", "site", "kit", Path("k"))
    found = seats([site, replace(site, name="site-4"), other, azure, replace(azure, region="northeurope"), kit],
                  ["us-east-1"])  # fmt: skip
    assert [(one.cloud, one.profile, one.region) for one in found] == [
        ("aws", None, "eu-central-1"),
        ("aws", None, "eu-west-1"),
        ("aws", None, "us-east-1"),
        ("aws", "hospital-b", "eu-central-1"),
        ("aws", "hospital-b", "eu-west-1"),
        ("aws", "hospital-b", "us-east-1"),
        ("azure", None, "westeurope"),
    ]
