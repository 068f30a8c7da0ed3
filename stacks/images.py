"""Which image a machine boots: one's own, else Ubuntu, or with GPUs one that has NVIDIA's driver."""

from __future__ import annotations

from dataclasses import dataclass

from stacks.args import ParticipantArgs
from stacks.catalogue import find, looks_like_gpu
from stacks.names import Cloud

UBUNTU_SSM = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
"""Canonical's public SSM parameter with the newest Ubuntu 24.04 AMI of a region."""

DLAMI_SSM = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
"""AWS's public SSM parameter with the newest Deep Learning Base AMI (driver and CUDA, no torch) on Ubuntu 22.04."""

PYTORCH_SSM = "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.11-ubuntu-24.04/latest/ami-id"
"""AWS's public SSM parameter with the newest Deep Learning AMI that has torch 2.11, in /opt/pytorch.

AWS has one line of images for each version of PyTorch and stops to build it after about a year: the release notes of
2026-08 list 2.11 on Ubuntu 24.04 for G4dn, G5, G6, P4 and P5, with /opt/pytorch/bin/python.
"""


@dataclass(frozen=True)
class Image:
    """`family` is its short name, of one's own image its ID; `min_disk_gib` what the OS disk must hold at least.

    `own`: the ID of an image of one's own, else empty. `ssm_parameter` is AWS's; `publisher`, `offer`, `sku` are
    Azure's (always the newest version at creation).
    `driver_extension`: Azure installs the driver after boot. `trusted_launch`: off where it is not known that the image
    takes it. `secure_boot`: off where an unsigned driver must load.
    """

    family: str
    min_disk_gib: int
    own: str = ""
    ssm_parameter: str = ""
    publisher: str = ""
    offer: str = ""
    sku: str = ""
    driver_extension: bool = False
    trusted_launch: bool = True
    secure_boot: bool = True


AWS_UBUNTU = Image("ubuntu-24.04", 8, ssm_parameter=UBUNTU_SSM)
AWS_DLAMI = Image("dlami-ubuntu-22.04", 100, ssm_parameter=DLAMI_SSM)
AWS_PYTORCH = Image("dlami-pytorch-2.11-ubuntu-24.04", 120, ssm_parameter=PYTORCH_SSM)
AZURE_UBUNTU = Image("ubuntu-24.04", 30, publisher="Canonical", offer="ubuntu-24_04-lts", sku="server")
AZURE_HPC = Image(
    "hpc-ubuntu-22.04",
    128,
    publisher="microsoft-dsvm",
    offer="ubuntu-hpc",
    sku="2204",
    trusted_launch=False,
    secure_boot=False,
)
# The extension needs an Ubuntu that it knows; 22.04 is on Microsoft's list for every NV and NC size.
AZURE_UBUNTU_DRIVER = Image(
    "ubuntu-22.04-driver",
    64,
    publisher="Canonical",
    offer="0001-com-ubuntu-server-jammy",
    sku="22_04-lts-gen2",
    driver_extension=True,
    secure_boot=False,
)


def image_for(cloud: Cloud, args: ParticipantArgs) -> Image:
    """The image of a participant's machine."""
    gpus, own = args.gpus is not None, args.existing.image
    return image_of(cloud, args.size, gpus=gpus, torch=args.torch_image, own=own)


def image_of(cloud: Cloud, size: str, *, gpus: bool, torch: bool, own: str | None = None) -> Image:
    """The image that a size boots.

    One's own (`own`, its ID) is taken as it is: what it holds is its maker's. An Azure one outside of a gallery (a
    managed image) can't have trusted launch. Secure boot is left off with GPUs: its driver may be unsigned.

    Else GPUs decide: those the kit asks for (`gpus`), or those that the size is known to have. On Azure the compute
    sizes (NC, ND) boot Microsoft's HPC image, the NV sizes get the driver extension, which installs the GRID driver
    that they need. Neither is known to bring torch; on AWS there is an image that does (`torch`).
    """
    gpu = gpus or _has_gpu(cloud, size)
    if own:
        managed = "/providers/microsoft.compute/images/" in own.lower()
        return Image(own, 0, own=own, trusted_launch=not managed, secure_boot=not gpu)
    if cloud == "aws":
        return (AWS_PYTORCH if torch else AWS_DLAMI) if gpu else AWS_UBUNTU
    if not gpu:
        return AZURE_UBUNTU
    return AZURE_UBUNTU_DRIVER if size.lower().startswith("standard_nv") else AZURE_HPC


def has_gpu(args: ParticipantArgs) -> bool:
    """Whether the machine has GPUs: the kit asks for them, or its size is known to have them."""
    return args.gpus is not None or _has_gpu("azure" if args.size.lower().startswith("standard_") else "aws", args.size)


def _has_gpu(cloud: Cloud, size: str) -> bool:
    known = find(cloud, size)
    return known.gpus > 0 if known else looks_like_gpu(cloud, size)


def os_disk_gib(cloud: Cloud, args: ParticipantArgs) -> int:
    """The OS disk's size: what was asked for, or what the image needs where that is more."""
    return max(args.os_disk_gib, image_for(cloud, args).min_disk_gib)
