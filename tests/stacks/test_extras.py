"""Prices of disks and addresses, as both clouds count them."""

from __future__ import annotations

import pytest

from stacks.extras import HOURS_A_MONTH, address_usd_hour, disk_usd_month, extras_usd_hour


def test_aws_bills_by_the_gib_and_azure_by_the_next_larger_tier() -> None:
    assert disk_usd_month("aws", 100) == pytest.approx(100 * disk_usd_month("aws", 1))  # type: ignore[operator]
    assert disk_usd_month("azure", 33) == disk_usd_month("azure", 64)
    assert disk_usd_month("azure", 64) != disk_usd_month("azure", 65)
    assert disk_usd_month("azure", 100_000) is None


def test_an_address_and_its_disks_make_the_extras() -> None:
    disks = (disk_usd_month("aws", 64) or 0) + (disk_usd_month("aws", 32) or 0)
    assert extras_usd_hour("aws", 64, 32) == pytest.approx(address_usd_hour("aws") + disks / HOURS_A_MONTH)
    assert extras_usd_hour("azure", 64, 100_000) is None
