"""What a machine's process takes for an order, and what of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deployer.sandbox.machines.orders import Change, Stop, read
from deployer.sandbox.machines.setup import Network
from deployer.sandbox.model import MachineSpec

BOOTED = MachineSpec(
    "i-1", "aws", "1", "eu-central-1", None, "m7i.large", True, "#cloud-config\n", private_ip="10.0.0.4"
)
NETWORK = Network("127.70.4.0/23", {"127.0.0.1": "198.51.100.10"}, {"site-1": {"delay_ms": 5.0}})


def test_an_order_is_read_as_it_was_given_but_for_what_a_running_machine_can_not_change() -> None:
    assert read(json.dumps(Stop(5.0).document()), BOOTED) == Stop(5.0)
    wanted = replace(BOOTED, tags={"Name": "x"}, user_data="", private_ip="10.0.0.9", public_ip="127.70.4.16")
    order = read(json.dumps(Change(wanted, NETWORK).document()).encode(), BOOTED)
    assert order == Change(replace(BOOTED, tags={"Name": "x"}, public_ip="127.70.4.16"), NETWORK)


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"do": "fly"}', '{"do": "stop"}', '{"do": "change", "machine": {}}'])
def test_what_is_no_order_is_told_as_such(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(line, BOOTED)
