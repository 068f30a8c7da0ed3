"""The identity by which an Azure machine deallocates itself, and its right. Names as in pulumi-azure-native 3.29."""

from __future__ import annotations

import pulumi
from pulumi_azure_native import authorization, compute

from stacks.args import ParticipantArgs
from stacks.names import assignment_name

POWER_ROLE = "40c5ff49-9181-41f8-ae61-143b0e78555e"
"""Azure's role "Desktop Virtualization Power On Off Contributor": the smallest built-in one that may deallocate."""


def identity(args: ParticipantArgs) -> compute.VirtualMachineIdentityArgs | None:
    """The machine's own, made and gone with it; said to be none where there was one, and else not spoken of."""
    if args.self_deallocate:
        return compute.VirtualMachineIdentityArgs(type=compute.ResourceIdentityType.SYSTEM_ASSIGNED)
    return compute.VirtualMachineIdentityArgs(type=compute.ResourceIdentityType.NONE) if args.drop_identity else None


def _principal(args: ParticipantArgs, machine: compute.VirtualMachine) -> pulumi.Input[str]:
    """Whose identity it is. A preview does not know what an update leaves as it is, and would show another role."""
    if args.principal and pulumi.runtime.is_dry_run():
        # of a machine that is replaced the ID is not known either
        known: pulumi.Output[str] = machine.id.apply(lambda _: args.principal)
        return known
    own: pulumi.Output[str] = machine.identity.apply(lambda given: given.principal_id if given else None)
    return own


def power_role(
    args: ParticipantArgs, machine: compute.VirtualMachine, logical: str, parent: pulumi.Resource
) -> authorization.RoleAssignment:
    """Lets the machine's identity turn this very machine on and off.

    It is taken away by itself and not only with the group: what stayed in Azure's directory would be in the way of the
    next one, whose name is the same.
    """
    return authorization.RoleAssignment(
        logical,
        role_assignment_name=machine.id.apply(assignment_name),
        scope=machine.id,
        role_definition_id=machine.id.apply(
            lambda id: (
                f"/subscriptions/{id.split('/')[2]}/providers/Microsoft.Authorization/roleDefinitions/{POWER_ROLE}"
            )
        ),
        principal_id=_principal(args, machine),
        # said, so that Azure does not look up an identity that it has made a moment ago
        principal_type=authorization.PrincipalType.SERVICE_PRINCIPAL,
        opts=pulumi.ResourceOptions(parent=parent, delete_before_replace=True),
    )
