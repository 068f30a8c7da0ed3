"""The machine images of the emulated EC2 and the SSM parameters that name them, the same in every region used.

Parameter names and owners are AWS's public ones (Canonical's documentation of its SSM paths; the release notes of the
AWS Deep Learning AMIs). Image ids are made up, and stable for a region.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from typing import Any

CANONICAL = "099720109477"
AMAZON = "898082745236"
RELEASED = "2026-10-20"  # the emulated images' date; nothing depends on it


@dataclass(frozen=True)
class Image:
    """An image: its name in EC2, who owns it, its root snapshot's size (GiB), the SSM parameters that lead to it."""

    name: str
    description: str
    owner: str
    owner_alias: str | None
    architecture: str
    root_gib: int
    parameters: tuple[str, ...]

    def ami(self, region: str) -> str:
        return "ami-" + hashlib.sha256(f"{region}/{self.name}".encode()).hexdigest()[:17]


def _ubuntu(series: str, version: str, arch: str, volume: str) -> Image:
    machine = {"amd64": "x86_64", "arm64": "arm64"}[arch]
    return Image(
        name=f"ubuntu/images/hvm-ssd{'-gp3' if volume == 'ebs-gp3' else ''}/ubuntu-{series}-{version}-{arch}-server-"
        + RELEASED.replace("-", ""),
        description=f"Canonical, Ubuntu, {version}, {arch} {series} image",
        owner=CANONICAL,
        owner_alias=None,
        architecture=machine,
        root_gib=8,
        parameters=(f"/aws/service/canonical/ubuntu/server/{version}/stable/current/{arch}/hvm/{volume}/ami-id",),
    )


def _deep_learning(version: str) -> Image:
    return Image(
        name=f"Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu {version}) {RELEASED.replace('-', '')}",
        description=f"Supported EC2 instances: G4dn, G5, G6, G6e, P4d, P4de, P5, P5en. Ubuntu {version}",
        owner=AMAZON,
        owner_alias="amazon",
        architecture="x86_64",
        root_gib=75,
        parameters=(f"/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-{version}/latest/ami-id",),
    )


def _pytorch(torch: str, version: str) -> Image:
    return Image(
        name=f"Deep Learning OSS Nvidia Driver AMI GPU PyTorch {torch} (Ubuntu {version}) {RELEASED.replace('-', '')}",
        description=f"Supported EC2 instances: G4dn, G5, G6, Gr6, G6e, P4, P4de, P5, P5e, P5en. PyTorch {torch}",
        owner=AMAZON,
        owner_alias="amazon",
        architecture="x86_64",
        root_gib=100,
        parameters=(
            f"/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-{torch}-ubuntu-{version}/latest/ami-id",
        ),
    )


IMAGES = (
    _ubuntu("jammy", "22.04", "amd64", "ebs-gp2"),
    _ubuntu("jammy", "22.04", "arm64", "ebs-gp2"),
    _ubuntu("noble", "24.04", "amd64", "ebs-gp3"),
    _ubuntu("noble", "24.04", "arm64", "ebs-gp3"),
    _deep_learning("22.04"),
    _deep_learning("24.04"),
    _pytorch("2.10", "24.04"),
    _pytorch("2.11", "24.04"),
)
BY_PARAMETER = {parameter: image for image in IMAGES for parameter in image.parameters}


def register_images(ec2: Any, region: str) -> None:
    """Puts the images into a moto EC2 backend, their snapshots with their real sizes."""
    from moto.ec2.models.amis import Ami

    for image in IMAGES:
        ami_id = image.ami(region)
        if ami_id in ec2.amis:
            continue
        ami = Ami(
            ec2,
            ami_id,
            name=image.name,
            description=image.description,
            owner_id=image.owner,
            owner_alias=image.owner_alias,
            public=True,
            virtualization_type="hvm",
            architecture=image.architecture,
            creation_date=datetime.datetime.fromisoformat(f"{RELEASED}T06:00:00+00:00"),
            image_location=f"{image.owner}/{image.name}",
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name="/dev/sda1",
            region_name=region + "a",
            boot_mode="uefi-preferred",
        )
        ami.ebs_snapshot.volume.size = image.root_gib
        ec2.amis[ami_id] = ami


def register_parameters(ssm: Any, account: str, region: str) -> None:
    """Puts the public parameters into a moto SSM backend; moto's own API refuses names below `/aws`."""
    from moto.ssm.models import Parameter

    released = datetime.datetime.fromisoformat(f"{RELEASED}T06:00:00+00:00")
    for name, image in BY_PARAMETER.items():
        if name in ssm._parameters:
            continue
        ssm._parameters[name].append(
            Parameter(
                account_id=account,
                name=name,
                value=image.ami(region),
                parameter_type="String",
                description=None,
                allowed_pattern=None,
                keyid=None,
                last_modified_date=released,
                version=1,
                data_type="aws:ec2:image",
            )
        )
