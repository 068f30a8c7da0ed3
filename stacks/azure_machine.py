"""What an Azure machine is made of: disks and image, login, security. Property names as in pulumi-azure-native 3.29."""

from __future__ import annotations

import base64

import pulumi
from pulumi_azure_native import compute, devtestlab

from stacks.args import ParticipantArgs
from stacks.cloud_init import user_data
from stacks.images import Image, os_disk_gib
from stacks.names import azure_name, resource_tags
from stacks.state_volume import AZURE_LUN

FIXED = (
    "osProfile",
    "storageProfile.imageReference",
    "securityProfile.securityType",
    "securityProfile.encryptionAtHost",
    "priority",
    "zones",
)
"""What ARM refuses to change in place, `encryptionAtHost` while the machine runs: a change replaces the machine."""


def security(args: ParticipantArgs, image: Image) -> compute.SecurityProfileArgs | None:
    """Trusted launch where the image knows it, and a machine that stands has it; None where there is nothing to say."""
    at_host = True if args.encryption_at_host else None
    if not (image.trusted_launch and args.trusted_launch):
        return compute.SecurityProfileArgs(encryption_at_host=at_host) if at_host else None
    return compute.SecurityProfileArgs(
        encryption_at_host=at_host,
        security_type="TrustedLaunch",
        uefi_settings=compute.UefiSettingsArgs(secure_boot_enabled=image.secure_boot, v_tpm_enabled=True),
    )


def storage(
    args: ParticipantArgs, image: Image, os_disk: str, state_disk: pulumi.Input[str]
) -> compute.StorageProfileArgs:
    """The image, the disk that it boots from (named `os_disk`, gone with the machine), the state disk attached."""
    return compute.StorageProfileArgs(
        image_reference=compute.ImageReferenceArgs(id=image.own)
        if image.own
        else compute.ImageReferenceArgs(publisher=image.publisher, offer=image.offer, sku=image.sku, version="latest"),
        os_disk=compute.OSDiskArgs(
            name=os_disk,
            create_option="FromImage",
            delete_option="Delete",
            caching=compute.CachingTypes.READ_WRITE,
            disk_size_gb=os_disk_gib("azure", args),
            managed_disk=compute.ManagedDiskParametersArgs(
                storage_account_type="Premium_LRS",
                disk_encryption_set=compute.DiskEncryptionSetParametersArgs(id=args.existing.kms_key)
                if args.existing.kms_key
                else None,
            ),
        ),
        data_disks=[
            compute.DataDiskArgs(
                lun=AZURE_LUN,
                create_option="Attach",
                caching=compute.CachingTypes.NONE,
                managed_disk=compute.ManagedDiskParametersArgs(id=state_disk),
            )
        ],
    )


def disk_encryption(args: ParticipantArgs) -> compute.EncryptionArgs:
    """With whose key the state disk is encrypted: the platform's, or the customer's."""
    if args.existing.kms_key is None:
        return compute.EncryptionArgs(type="EncryptionAtRestWithPlatformKey")
    return compute.EncryptionArgs(type="EncryptionAtRestWithCustomerKey", disk_encryption_set_id=args.existing.kms_key)


def daily_shutdown(
    args: ParticipantArgs, machine: compute.VirtualMachine, vm_name: str, logical: str, opts: pulumi.ResourceOptions
) -> devtestlab.GlobalSchedule:
    """Azure's own daily shutdown, which deallocates: it ends the bill, which a machine's power-off does not."""
    return devtestlab.GlobalSchedule(
        logical,
        name=f"shutdown-computevm-{vm_name}",
        resource_group_name=azure_name(args.federation, args.participant, "rg"),
        location=args.region,
        status="Enabled",
        task_type="ComputeVmShutdownTask",
        daily_recurrence=devtestlab.DayDetailsArgs(time=args.deallocate_at),
        time_zone_id="UTC",
        target_resource_id=machine.id,
        tags=resource_tags("azure", args, logical),
        opts=opts,
    )


def os_profile(args: ParticipantArgs) -> compute.OSProfileArgs:
    """Login by key only; user-data is a secret, as it holds the machine's first host key."""
    return compute.OSProfileArgs(
        computer_name=args.participant,
        admin_username=args.ssh_user,
        custom_data=pulumi.Output.secret(base64.b64encode(user_data(args).encode()).decode()),
        linux_configuration=compute.LinuxConfigurationArgs(
            disable_password_authentication=True,
            provision_vm_agent=True,
            # The image's own unattended upgrades stay in charge.
            patch_settings=compute.LinuxPatchSettingsArgs(patch_mode="ImageDefault"),
            ssh=compute.SshConfigurationArgs(
                public_keys=[
                    compute.SshPublicKeyArgs(
                        key_data=args.public_key, path=f"/home/{args.ssh_user}/.ssh/authorized_keys"
                    )
                ]
            ),
        ),
    )
