"""What a plan says about torch on a site's machine. Pure."""

from __future__ import annotations

from deployer.errors import SpecError
from deployer.member import Member

NAME_AN_INDEX = 'torch: {index: https://…, version: "…"} in federation.yml, then fedspan up'


def torch_in_words(member: Member) -> str:
    """Where job scripts get torch from; empty where nobody wants it.

    Raises:
        SpecError: the image's torch is asked for where the image has none.
    """
    torch = member.wanted_torch
    if torch is None or member.target == "kit":
        return ""
    if not torch.from_image:
        return f"{torch.version} from {torch.index}, which the machine asks itself; nothing of it goes over SSH"
    if member.cloud is None:
        return "what the machine has in /opt/pytorch, /opt/conda or its python3"
    if member.existing.get("image"):
        return "what your image has in /opt/pytorch, /opt/conda or its python3"
    if not member.has_gpus:
        raise SpecError(
            f"torch: image, but the image of a machine without GPUs on {member.cloud} has no torch",
            participant=member.name,
            next_step='torch: {index: https://download.pytorch.org/whl/cpu, version: "…"} in federation.yml',
        )
    if member.cloud == "aws":
        return "the image's (AWS's PyTorch Deep Learning AMI)"
    return f"the image's, but Azure's GPU images are not known to have it; if it has none: {NAME_AN_INDEX}"
