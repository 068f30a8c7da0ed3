"""The catalogue: every row complete and dated, and the choice a reader would make from the same table."""

from __future__ import annotations

from datetime import date

import pytest
from stack_samples import CLOUDS, sample

from stacks.args import Gpu
from stacks.catalogue import choose_size, find, looks_like_gpu, offers, price
from stacks.cloud_checks import check_for
from stacks.errors import StackArgumentError
from stacks.images import image_for, os_disk_gib


def test_every_row_is_complete_dated_and_sourced() -> None:
    assert {offer.cloud for offer in offers()} == set(CLOUDS)
    for offer in offers():
        assert offer.vcpu >= 2
        assert offer.memory_gib >= 4
        assert (offer.gpus == 0) == (offer.gpu_model == "") == (offer.gpu_memory_gib == 0)
        assert offer.source
        if offer.usd_hour is not None:
            assert 0 < offer.usd_hour < 200
            assert offer.price_region
            assert date.fromisoformat(offer.as_of) <= date(2027, 1, 1)
        check_for(offer.cloud, sample(offer.cloud, size=offer.size))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_each_cloud_has_about_eight_sizes_with_and_without_gpus(cloud: str) -> None:
    mine = [offer for offer in offers() if offer.cloud == cloud]
    assert 6 <= len(mine) <= 14
    assert {offer.gpus > 0 for offer in mine} == {True, False}
    assert len({offer.size for offer in mine}) == len(mine)


def test_the_sizes_of_the_example_are_there() -> None:
    for cloud, size in (("azure", "Standard_D4s_v5"), ("aws", "m7i.large"), ("aws", "g4dn.xlarge")):
        assert find(cloud, size) is not None, size  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cloud", "gpus", "size"),
    [
        ("aws", None, "m7i.large"),
        ("azure", None, "Standard_D2s_v5"),
        ("aws", Gpu(1, 16), "g4dn.xlarge"),
        ("azure", Gpu(1, 16), "Standard_NC4as_T4_v3"),
        # Sold as 24 GB, told as 22.4 GiB.
        ("aws", Gpu(1, 24), "g6.xlarge"),
        ("aws", Gpu(2, 16), "g4dn.12xlarge"),
        ("azure", Gpu(1, 80), "Standard_NC24ads_A100_v4"),
    ],
)
def test_the_cheapest_size_that_fits_is_chosen(cloud: str, gpus: Gpu | None, size: str) -> None:
    assert choose_size(cloud, gpus).size == size  # type: ignore[arg-type]


def test_a_need_that_nothing_meets_says_so() -> None:
    with pytest.raises(StackArgumentError, match="no aws size in the catalogue has 64 GPUs of 80 GiB"):
        choose_size("aws", Gpu(64, 80))


def test_a_named_size_that_is_too_small_is_refused_with_one_that_fits() -> None:
    with pytest.raises(StackArgumentError) as caught:
        choose_size("aws", Gpu(1, 16), "m7i.large")
    assert "m7i.large has too little for the kit, which needs 1 GPU of 16 GiB: it has none" in str(caught.value)
    assert "size: g4dn.xlarge" in str(caught.value)


def test_a_size_that_is_not_in_the_catalogue_has_an_unknown_price() -> None:
    offer = choose_size("aws", None, "x2idn.16xlarge")
    assert (offer.size, offer.usd_hour) == ("x2idn.16xlarge", None)
    assert price("aws", "x2idn.16xlarge") is None


def test_names_on_azure_are_the_same_in_any_case() -> None:
    assert price("azure", "standard_d4s_V5") == price("azure", "Standard_D4s_v5")


@pytest.mark.parametrize(
    ("cloud", "size", "gpu"),
    [
        ("aws", "g6.48xlarge", True),
        ("aws", "p5en.48xlarge", True),
        ("aws", "g4ad.xlarge", False),
        ("aws", "m7i.48xlarge", False),
        ("azure", "Standard_ND96isr_H100_v5", True),
        ("azure", "Standard_D64s_v5", False),
    ],
)
def test_sizes_outside_the_catalogue_are_told_by_their_names(cloud: str, size: str, gpu: bool) -> None:
    assert looks_like_gpu(cloud, size) is gpu  # type: ignore[arg-type]
    assert (image_for(cloud, sample(cloud, size=size)).family != "ubuntu-24.04") is gpu  # type: ignore[arg-type]


def test_the_os_disk_is_never_smaller_than_its_image() -> None:
    assert os_disk_gib("aws", sample(size="g4dn.xlarge", gpus=Gpu(1), os_disk_gib=20)) == 100
    assert os_disk_gib("aws", sample(os_disk_gib=20)) == 20
    assert os_disk_gib("azure", sample("azure", os_disk_gib=8)) == 30


def test_an_image_with_torch_is_booted_where_torch_comes_from_it_and_the_cloud_has_one() -> None:
    wanted = {
        ("aws", "g4dn.xlarge", True): "dlami-pytorch-2.11-ubuntu-24.04",
        ("aws", "g4dn.xlarge", False): "dlami-ubuntu-22.04",
        ("aws", "m7i.large", True): "ubuntu-24.04",
        ("azure", "Standard_NC4as_T4_v3", True): "hpc-ubuntu-22.04",
    }
    found = {key: image_for(key[0], sample(key[0], size=key[1], torch_image=key[2])).family for key in wanted}  # type: ignore[arg-type]
    assert found == wanted
