"""The address pool and the fault book by themselves."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deployer.sandbox.addresses import LOCK_PORT, AddressPool, AddressPoolExhausted, take_block
from deployer.sandbox.faults import FaultBook, Faults
from deployer.sandbox.model import MachineSpec, Rule, machine_from_json, machine_to_json


def test_a_block_belongs_to_one_sandbox_and_is_free_again_when_that_ends() -> None:
    one = take_block("a test's seed")
    two = take_block("a test's seed")
    try:
        assert one.public.network != two.public.network
        assert one.control in str(one.public.network.supernet()) or one.control in one.public
        with socket.create_connection((one.control, LOCK_PORT), timeout=5):
            pass
    finally:
        one.holder.close()
        two.holder.close()
    again = take_block("a test's seed")
    again.holder.close()
    assert again.public.network == one.public.network


def test_public_and_private_addresses_never_overlap_nor_touch_the_control() -> None:
    block = take_block("another seed")
    block.holder.close()
    public = {block.public.allocate("x") for _ in range(400)}
    private = {block.private.allocate("x") for _ in range(400)}
    assert not public & private
    assert block.control not in public | private


def test_a_released_address_comes_back_last() -> None:
    pool = AddressPool("127.99.0.0/29")
    first = pool.allocate("a")
    pool.release(first)
    pool.release(first)
    others = [pool.allocate("b") for _ in range(6)]
    assert first not in others
    assert pool.allocate("c") == first
    assert pool.owner(first) == "c"
    with pytest.raises(AddressPoolExhausted):
        pool.allocate("d")
    assert "127.99.0.3" in pool
    assert "127.98.0.3" not in pool
    assert "nonsense" not in pool
    with pytest.raises(ValueError, match=r"127\.0\.0\.0/8"):
        AddressPool("10.0.0.0/24")


def test_a_machines_description_survives_json() -> None:
    spec = MachineSpec(
        "i-1", "aws", "1", "r", None, "s", True, "data", (("u", "k"),), "127.1.2.3", "10.0.0.1",
        (Rule(22, 22, "tcp", "10.0.0.0/8"),), (("vol-1", "/dev/sdf"),), {"fedspan-participant": "site-1"}, 3,
    )  # fmt: skip
    assert machine_from_json(machine_to_json(spec)) == spec
    assert spec.participant == "site-1"
    with pytest.raises(TypeError):
        machine_from_json({**machine_to_json(spec), "unknown": 1})


def test_faults_are_read_live_and_meant_by_any_of_a_resources_names(tmp_path: Path) -> None:
    book = FaultBook(tmp_path / "faults.json")
    assert book.read() == Faults()
    book.write(Faults(delays={"vm": 2, "Microsoft.Compute/VirtualMachines": 3, "*": 1}, fail={"ec2:eip": "none left"}))
    assert book.delay("ec2:instance") == 2
    assert book.delay("Microsoft.Compute/virtualMachines") == 3
    assert book.delay("ec2:subnet") == 1
    assert book.failure("ec2:eip") == "none left"
    assert book.failure("ec2:instance") is None
    book.write(Faults(no_capacity=("eu-west-1a", "westeurope")))
    assert book.delay("ec2:instance") == 0
    assert book.no_capacity("eu-west-1a", "eu-west-1")
    assert book.no_capacity(None, "WestEurope")
    assert not book.no_capacity("eu-west-1b", "eu-west-1")
    (tmp_path / "faults.json").unlink()
    assert book.read() == Faults()


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"delays": []},
        {"delays": {"vm": "x"}},
        {"delays": {"vm": True}},
        {"fail": {"vm": 1}},
        {"never_ssh": "a"},
        {"x": 1},
    ],
)
def test_wrong_faults_are_named(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Faults.from_json(wrong)
