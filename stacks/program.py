"""The Pulumi program of one participant's stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from stacks.access import Access, AwsAccess, AzureAccess
from stacks.args import ParticipantArgs
from stacks.cloud_checks import check_for
from stacks.cloud_init import user_data
from stacks.errors import StackArgumentError
from stacks.names import Cloud, Stage

__all__ = ["Access", "AwsAccess", "AzureAccess", "participant_program"]


def participant_program(
    cloud: Cloud, args: ParticipantArgs, access: Access, stage: Stage | Literal["address", "full"] = "full"
) -> Callable[[], None]:
    """Check everything now; return the program for the Automation API, which makes the stack and exports its outputs.

    Exports with `stage="address"`: public_ip, region. With `"full"` also private_ip, vm_id, size, ssh_user,
    host_key_fingerprint and image (the image's family), on Azure deallocate_at where the daily shutdown
    stands and self_deallocate where the machine has its identity. Never
    run `"address"` on a stack that holds more: the engine deletes what the program leaves out. Raises
    `StackArgumentError`.
    """
    check_for(cloud, args)
    user_data(args)
    where = access.region if isinstance(access, AwsAccess) else access.location
    if isinstance(access, AwsAccess) != (cloud == "aws"):
        raise StackArgumentError("access", f"is another cloud's, not {cloud}'s", participant=args.participant)
    if where != args.region:
        raise StackArgumentError("region", f"{args.region}, but access is for {where}", participant=args.participant)
    if stage not in ("address", "full"):
        raise StackArgumentError("stage", f"{stage!r} is neither address nor full", participant=args.participant)

    def program() -> None:
        # Here and not above: whoever only plans or asks for a status loads no Pulumi.
        import pulumi

        if isinstance(access, AwsAccess):
            from stacks.aws import AwsParticipant, aws_provider

            provider = pulumi.ResourceOptions(providers=[aws_provider(args, access)])
            outputs = AwsParticipant(args.participant, args, stage, provider).outputs
        else:
            from stacks.azure import AzureParticipant, azure_provider

            provider = pulumi.ResourceOptions(providers=[azure_provider(args, access)])
            outputs = AzureParticipant(args.participant, args, stage, provider).outputs
        for name, value in outputs.items():
            pulumi.export(name, value)

    return program
