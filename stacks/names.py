"""Names and tags: how everything that a stack makes can be found again, in the state and in the clouds.

Logical names are `<participant>-<kind>`. Azure's physical names are fixed, `<federation>-<participant>-<kind>`, so that
what a crash left behind has a resource ID that can be computed. AWS gives IDs of its own; there the tags find it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from stacks.args import ParticipantArgs

Cloud = Literal["aws", "azure"]
"""The clouds that a stack can be made in."""

Stage = Literal["address", "full"]
"""`address`: network and static address only. `full`: everything, `address` included."""

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]")
"""Names of federations and participants."""

AZURE_NAME_LIMIT = 64
"""The shortest limit among the Azure kinds used here (virtual machine, virtual network); resource groups allow 90."""

TAG_KEYS = ("federation", "deployment", "participant", "owner", "logical-name")
"""What every taggable resource says about itself, in this order."""


def tag_key(cloud: Cloud, name: str) -> str:
    """`fedspan:federation` on AWS, `fedspan-federation` on Azure."""
    return f"fedspan:{name}" if cloud == "aws" else f"fedspan-{name}"


def logical_name(participant: str, kind: str) -> str:
    """The name in the stack's state, for example `site-1-vm`."""
    return f"{participant}-{kind}"


def azure_name(federation: str, participant: str, kind: str) -> str:
    """The fixed physical name on Azure, at most 64 characters.

    A name that would be longer keeps its readable start and its kind; a hash of the whole stands between them.
    """
    full = f"{federation}-{participant}-{kind}"
    if len(full) <= AZURE_NAME_LIMIT:
        return full
    digest = hashlib.sha256(full.encode()).hexdigest()[:10]
    head = full[: AZURE_NAME_LIMIT - len(kind) - len(digest) - 2].rstrip("-")
    return f"{head}-{digest}-{kind}"


def assignment_name(vm_id: str) -> str:
    """The name of the role assignment by which a machine on Azure may deallocate itself: always the same UUID."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"fedspan:deallocate:{vm_id.lower()}"))


def aws_name(federation: str, participant: str) -> str:
    """The fixed physical name of what has names on AWS and is unique only within its own VPC: the security group."""
    return f"fedspan-{federation}-{participant}"


def key_pair_name(federation: str, deployment: str, participant: str) -> str:
    """The fixed name of an AWS key pair; key pairs share one namespace in a region, so the deployment is part of it."""
    return f"fedspan-{federation}-{participant}-{deployment}"


def common_tags(cloud: Cloud, args: ParticipantArgs) -> dict[str, str]:
    """The tags that all resources of one stack share: the user's and the four of the deployment."""
    own = {
        "federation": args.federation,
        "deployment": args.deployment,
        "participant": args.participant,
        "owner": args.owner,
    }
    return {**args.tags, **{tag_key(cloud, name): value for name, value in own.items()}}


def resource_tags(cloud: Cloud, args: ParticipantArgs, logical: str) -> dict[str, str]:
    """Every tag of one resource: the common ones, its logical name, and on AWS the `Name` that the console shows."""
    tags = common_tags(cloud, args)
    tags[tag_key(cloud, "logical-name")] = logical
    if cloud == "aws":
        tags["Name"] = f"{args.federation}-{logical}"
    return tags


def machine_tags(cloud: Cloud, args: ParticipantArgs, logical: str) -> dict[str, str]:
    """The tags of the machine itself: those of every resource, and when it ends by itself."""
    tags = resource_tags(cloud, args, logical)
    return {**tags, tag_key(cloud, "expires-at"): args.expires} if args.expires else tags


def belongs_to(
    cloud: Cloud, tags: Mapping[str, str] | None, *, federation: str, deployment: str, participant: str
) -> bool:
    """True when these tags, read from a cloud, say that the resource is this participant's in this deployment."""
    found = tags or {}
    wanted = {"federation": federation, "deployment": deployment, "participant": participant}
    return all(found.get(tag_key(cloud, name)) == value for name, value in wanted.items())


def key_fingerprint(public_key: str) -> str:
    """OpenSSH's `SHA256:…` fingerprint of a public key line (`ssh-ed25519 AAAA… [comment]`)."""
    blob = base64.b64decode(public_key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
