"""Whether the image that a machine will boot is there, and whether its disk holds it."""

from __future__ import annotations

from collections.abc import Iterable

from deployer.preflight.model import Finding
from deployer.preflight.place import Place, Wanted, asking
from stacks.images import image_for, os_disk_gib


def check(place: Place) -> Iterable[Finding]:
    """Each image once, for those whose machine is going to be made."""
    seen: dict[str, list[Wanted]] = {}
    for one in place.wanted:
        if one.makes_machine:
            seen.setdefault(image_for(place.cloud, one.args).family, []).append(one)
    for family, users in seen.items():
        yield _aws(place, family, users) if place.cloud == "aws" else _azure(place, family, users)


def _aws(place: Place, family: str, users: list[Wanted]) -> Finding:
    image = image_for("aws", users[0].args)
    with asking("ssm:GetParameter"):
        try:
            ami = place.aws("ssm").get_parameter(Name=image.ssm_parameter)["Parameter"]["Value"]
        except place.aws("ssm").exceptions.ParameterNotFound:
            return _missing(place, family, users, f"SSM has no parameter {image.ssm_parameter}")
    with asking("ec2:DescribeImages"):
        found = place.aws("ec2").describe_images(ImageIds=[ami])["Images"]
    if not found or found[0].get("State", "available") != "available":
        return _missing(place, family, users, f"{ami} is not available")
    sizes = [
        mapping["Ebs"].get("VolumeSize", 0) for mapping in found[0].get("BlockDeviceMappings", []) if "Ebs" in mapping
    ]
    small = [one.name for one in users if sizes and os_disk_gib("aws", one.args) < max(sizes)]
    if small:
        why = f"{ami} holds {max(sizes)} GiB"
        return Finding("image", f"the disk of {', '.join(small)} is too small for {family}", "refused", why=why)
    return Finding("image", f"{family} is {ami} in {place.region}")


def _azure(place: Place, family: str, users: list[Wanted]) -> Finding:
    image = image_for("azure", users[0].args)
    from azure.core.exceptions import ResourceNotFoundError

    with asking("Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read"):
        try:
            versions = place.azure.compute.virtual_machine_images.list(
                place.region, image.publisher, image.offer, image.sku
            )
        except ResourceNotFoundError:
            versions = []
    if not versions:
        return _missing(place, family, users, f"there is no {image.publisher}:{image.offer}:{image.sku}")
    return Finding("image", f"{family} is {image.publisher}:{image.offer}:{image.sku}:{versions[-1].name}")


def _missing(place: Place, family: str, users: list[Wanted], why: str) -> Finding:
    return Finding(
        "image",
        f"the image {family} is not in {place.region}",
        "refused",
        participant=users[0].name,
        why=why,
        next_step="another `region:` in federation.yml",
    )
