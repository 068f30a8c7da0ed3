"""What a plan says about torch on the machines of sites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deployer.errors import SpecError
from deployer.member import Member
from deployer.torch_words import torch_in_words
from startup_kits.torch_source import TorchSource

INDEX = TorchSource("https://download.pytorch.org/whl/cu126", "2.13.0")


def member(target: str, size: str | None = None, torch: TorchSource | None = None, gpus: int = 0) -> Member:
    kit = Path("kits/site-1")
    about = {"gpu_count": gpus, "gpu_memory_gib": 16.0 * gpus, "torch": torch}
    return Member("site-1", "site", target, kit, region="eu-west-1", size=size, **about)


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (member("aws", "m7i.large"), ""),
        (member("aws", gpus=1), "the image's (AWS's PyTorch Deep Learning AMI)"),
        (member("aws", "g4dn.xlarge"), "the image's (AWS's PyTorch Deep Learning AMI)"),
        (member("azure", gpus=1), "Azure's GPU images are not known to have it; if it has none: torch: {index:"),
        (member("host", gpus=1), "what the machine has in /opt/pytorch"),
        (member("kit", gpus=1), ""),
        (member("aws", "m7i.large", INDEX), "2.13.0 from https://download.pytorch.org/whl/cu126, which the machine"),
        (Member("server", "server", "aws", Path("kits/server"), size="g4dn.xlarge"), ""),
    ],
)
def test_gpu_sites_say_where_torch_comes_from(one: Member, told: str) -> None:
    words = torch_in_words(one)
    assert told in words
    assert bool(told) == bool(words)


def test_of_an_image_of_ones_own_nothing_is_said_that_holds_for_the_clouds_alone() -> None:
    own = {"image": "ami-0123456789abcdef0"}
    for one in (member("aws", "m7i.large", TorchSource()), member("aws", "g4dn.xlarge")):
        assert torch_in_words(replace(one, existing=own)).startswith("what your image has in /opt/pytorch")


def test_the_image_of_a_machine_without_gpus_is_refused_before_anything_is_made() -> None:
    with pytest.raises(SpecError) as caught:
        torch_in_words(member("aws", "m7i.large", TorchSource()))
    assert "torch: {index:" in str(caught.value.next_step)
