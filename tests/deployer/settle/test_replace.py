"""Machines come and go; address, interface and state volume stay. On both emulated clouds, by the engine itself."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.checkpoint import boots_another, stack_outputs
from deployer.sandbox.aws.images import IMAGES
from stacks.args import Gpu
from stacks.existing import Existing
from stacks.images import image_for
from stacks.program import participant_program

CLOUDS = ["aws", pytest.param("azure", marks=pytest.mark.slow)]
BIGGER = {"aws": "m7i.xlarge", "azure": "Standard_D8s_v5"}

pytestmark = pytest.mark.timeout(280)


def ids(one: Any) -> dict[str, str]:
    """The IDs by the end of the logical name."""
    return {thing.name.removeprefix(f"{one.participant}-"): thing.id for thing in one.found()}


def made(one: Any) -> str:
    """When the machine was made: on Azure its ID says nothing, as names are fixed."""
    return str(next(thing.created for thing in one.found() if thing.name.endswith("-vm")))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_replaced_machine_has_the_old_one_s_address_and_volume(rig: Any, cloud: str) -> None:
    one = rig(cloud)
    one.work("address")
    address = stack_outputs(one.engine.state())[0]["public_ip"]
    one.work("up")
    before, born = ids(one), made(one)
    assert stack_outputs(one.engine.state())[0]["public_ip"] == address

    one.change(size=BIGGER[cloud])  # in place
    one.work("up")
    assert ids(one) == before
    assert made(one) == born

    one.change(ssh_user="keeper")  # another user-data: another machine
    one.work("up")
    one.check_exactly_one_of_each()
    changed = {name for name, known in ids(one).items() if before.get(name) != known}
    assert changed <= {"vm", "os-disk", "state-attachment"}
    assert made(one) != born
    outputs = stack_outputs(one.engine.state())[0]
    assert (outputs["public_ip"], outputs["ssh_user"], outputs["size"]) == (address, "keeper", BIGGER[cloud])


def test_another_image_of_ones_own_is_booted_by_another_machine(rig: Any) -> None:
    region = "eu-central-1"
    other, ours = (Existing(image=image.ami(region)) for image in IMAGES if image.root_gib == 8 and "amd" in image.name)
    one = rig("aws", existing=ours)
    one.work("up")
    born, before = made(one), ids(one)

    def wanted(existing: Existing) -> list[tuple[str, str]]:
        """What a plan shows with that image."""
        one.change(existing=existing, reimage=False)
        one.change(reimage=boots_another(one.engine.state(), image_for("aws", one.args)))
        steps = one.engine.preview(participant_program("aws", one.args, one.access)).steps
        return [(step.action, step.name.removeprefix(f"{one.participant}-")) for step in steps]

    assert wanted(ours) == []
    assert ("replace", "vm") in wanted(other)
    one.work("up")
    one.check_exactly_one_of_each()
    assert made(one) != born
    assert ids(one)["state"] == before["state"]
    assert stack_outputs(one.engine.state())[0]["image"] == other.image
    assert wanted(other) == []
    assert ("replace", "vm") in wanted(Existing())  # the cloud's again


@pytest.mark.slow
@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_spot_machine_is_made_replaced_and_taken_down(rig: Any, cloud: str) -> None:
    one = rig(cloud, spot=True)
    one.work("up")
    volume = ids(one)["state"]
    one.change(size=BIGGER[cloud], ssh_user="keeper")
    one.work("up")
    one.check_exactly_one_of_each()
    assert ids(one)["state"] == volume
    one.work("destroy")
    assert one.found() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cloud", "size", "image", "kinds"),
    [
        ("aws", "g4dn.xlarge", "dlami-ubuntu-22.04", set()),
        ("azure", "Standard_NC4as_T4_v3", "hpc-ubuntu-22.04", set()),
        ("azure", "Standard_NV36ads_A10_v5", "ubuntu-22.04-driver", {"gpu-driver"}),
    ],
)
def test_a_machine_that_gets_gpus_boots_another_image(
    rig: Any, cloud: str, size: str, image: str, kinds: set[str]
) -> None:
    one = rig(cloud)
    one.work("up")
    before, address = ids(one), stack_outputs(one.engine.state())[0]["public_ip"]
    assert stack_outputs(one.engine.state())[0]["image"] == "ubuntu-24.04"
    one.change(size=size, gpus=Gpu(1, 16), reimage=True)
    one.work("up")
    one.check_exactly_one_of_each()
    assert set(ids(one)) - set(before) == kinds
    outputs = stack_outputs(one.engine.state())[0]
    assert (outputs["public_ip"], outputs["image"]) == (address, image)
    assert ids(one)["state"] == before["state"]
    one.work("destroy")
    assert one.found() == []
