"""What one of the clouds would refuse of arguments that are right in themselves."""

from __future__ import annotations

import re

from stacks.args import ParticipantArgs
from stacks.azure_zones import has_zones
from stacks.errors import StackArgumentError
from stacks.names import Cloud

_AWS_ZONE = re.compile(r"[a-z][a-z0-9-]*[0-9][a-z]")
_ARM_AWS = re.compile(r"[a-z]+\d+g[a-z]*\.")
_ARM_AZURE = re.compile(r"standard_[a-z]+\d+(?:-\d+)?[a-z]*p[a-z]*(?:_|$)")


def check_for(cloud: Cloud, args: ParticipantArgs) -> None:
    """Raise `StackArgumentError` for what this one cloud would refuse: a size or a zone of the other one's, Arm."""
    size = args.size.lower()
    args.existing.check(cloud, args.participant)

    def fail(field_name: str, what: str, next_step: str | None = None) -> StackArgumentError:
        return StackArgumentError(field_name, what, participant=args.participant, next_step=next_step)

    if cloud == "aws":
        if "." not in args.size:
            raise fail("size", f"{args.size!r} is no EC2 instance type", "like m7i.large")
        if _ARM_AWS.match(size):
            raise fail("size", f"{args.size} has an Arm processor; the images are for x86-64", "like m7i.large")
        if args.zone is not None and (not _AWS_ZONE.fullmatch(args.zone) or not args.zone.startswith(args.region)):
            raise fail("zone", f"{args.zone!r} is no zone of {args.region}", f"like {args.region}a")
        if args.existing.subnet and args.zone is None:
            raise fail("zone", "is missing: the state volume is made in the subnet's zone", f"zone: {args.region}a")
        if args.encryption_at_host:
            raise fail("encryption_at_host", "is Azure's; EBS volumes are always encrypted here")
        if args.self_deallocate:
            raise fail("self_deallocate", "is Azure's; EC2 terminates a machine with an end that powers itself off")
        return
    if not size.startswith("standard_"):
        raise fail("size", f"{args.size!r} is no Azure VM size", "like Standard_D4s_v5")
    if _ARM_AZURE.match(size):
        raise fail("size", f"{args.size} has an Arm processor; the images are for x86-64", "like Standard_D4s_v5")
    if args.zone is not None and args.zone not in ("1", "2", "3"):
        raise fail("zone", f"{args.zone!r} is no zone; Azure's are 1, 2 and 3", "zone: 1")
    if args.zone is not None and not has_zones(args.region):
        raise fail("zone", f"{args.region} has no zones that are known here", "leave zone out")
