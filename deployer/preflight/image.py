"""Whether the image that a machine will boot (the cloud's own, or the account's) is there, and its disk holds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from deployer.preflight.model import Finding
from deployer.preflight.place import Place, Wanted, asking
from stacks.images import Image, image_for, os_disk_gib

# by whether it is in a gallery: what it is, and of which API version it is asked
_OWN = {
    False: ("Microsoft.Compute/images", "2024-07-01"),
    True: ("Microsoft.Compute/galleries/images/versions", "2023-07-03"),
}


def check(place: Place) -> Iterable[Finding]:
    """Each image once, for those whose machine is going to be made."""
    seen: dict[Image, list[Wanted]] = {}
    for one in place.wanted:
        if one.makes_machine:
            seen.setdefault(_booted(place, one), []).append(one)
    for image, users in seen.items():
        if place.cloud == "aws":
            yield _aws(place, image, users)
        else:
            yield _azure_own(place, image, users) if image.own else _azure(place, image, users)


def _booted(place: Place, one: Wanted) -> Image:
    """On AWS a machine in another's place boots that one's AMI, where nothing else is wanted."""
    image = image_for(place.cloud, one.args)
    kept = one.standing.image if one.standing is not None and not one.args.reimage else ""
    return replace(image, own=kept) if kept and not image.own else image


def _aws(place: Place, image: Image, users: list[Wanted]) -> Finding:
    from botocore.exceptions import ClientError

    family, ami = image.family, image.own
    if not ami:
        parameter = image.ssm_parameter
        with asking("ssm:GetParameter"):
            try:
                ami = place.aws("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
            except place.aws("ssm").exceptions.ParameterNotFound:
                return _missing(place, image, users, f"SSM has no parameter {parameter}")
    with asking("ec2:DescribeImages"):
        try:
            found = place.aws("ec2").describe_images(ImageIds=[ami])["Images"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidAMIID.NotFound":
                raise
            found = []
    if not found or found[0].get("State", "available") != "available":
        return _missing(place, image, users, f"{ami} is not available")
    sizes = [
        mapping["Ebs"].get("VolumeSize", 0) for mapping in found[0].get("BlockDeviceMappings", []) if "Ebs" in mapping
    ]
    small = [one.name for one in users if sizes and os_disk_gib("aws", one.args) < max(sizes)]
    if small:
        why = f"{ami} holds {max(sizes)} GiB"
        return Finding("image", f"the disk of {', '.join(small)} is too small for {family}", "refused", why=why)
    return Finding(
        "image", f"{family} is in {place.region}" if family == ami else f"{family} is {ami} in {place.region}"
    )


def _azure(place: Place, image: Image, users: list[Wanted]) -> Finding:
    from azure.core.exceptions import ResourceNotFoundError

    with asking("Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read"):
        try:
            versions = place.azure.compute.virtual_machine_images.list(
                place.region, image.publisher, image.offer, image.sku
            )
        except ResourceNotFoundError:
            versions = []
    if not versions:
        return _missing(place, image, users, f"there is no {image.publisher}:{image.offer}:{image.sku}")
    return Finding("image", f"{image.family} is {image.publisher}:{image.offer}:{image.sku}:{versions[-1].name}")


def _azure_own(place: Place, image: Image, users: list[Wanted]) -> Finding:
    """An image of the account's own: a managed image, or a version in a gallery, perhaps another subscription's."""
    from azure.core.exceptions import ResourceNotFoundError

    kind, version = _OWN["/galleries/" in image.own.lower()]
    with asking(f"{kind}/read"):
        try:
            place.azure.resources.resources.get_by_id(image.own, api_version=version)
        except ResourceNotFoundError:
            return _missing(place, image, users, "Azure knows no image with that ID")
    return Finding("image", f"{image.own} is there")


def _missing(place: Place, image: Image, users: list[Wanted], why: str) -> Finding:
    step = "another `region:` in federation.yml"
    if image.own and users[0].args.existing.image:
        step = "mend `image:` in federation.yml"
    elif image.own:
        why, step = f"{why}, and its machine boots that one again", "name another one with `image:` in federation.yml"
    return Finding(
        "image",
        f"the image {image.family} is not in {place.region}",
        "refused",
        participant=users[0].name,
        why=why,
        next_step=step,
    )
