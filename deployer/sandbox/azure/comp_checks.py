"""What compute refuses in a machine's body: sizes, images, logins, user-data, and changes of what is fixed."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from deployer.sandbox.azure import catalogue
from deployer.sandbox.azure.arm_errors import ArmError, change_not_allowed, invalid_parameter, missing_parameter
from deployer.sandbox.azure.state import Body, Cloud, Record

CUSTOM_DATA_CHARACTERS = 87380  # base64 of 64 KiB
ENCRYPTION_FEATURE = ("microsoft.compute", "encryptionathost")
_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,63}\Z", re.IGNORECASE)
_FORBIDDEN_USERS = frozenset(
    [
        "1",
        "123",
        "a",
        "actuser",
        "adm",
        "admin",
        "admin1",
        "admin2",
        "administrator",
        "aspnet",
        "backup",
        "console",
        "david",
        "guest",
        "john",
        "owner",
        "root",
        "server",
        "sql",
        "support",
        "support_388945a0",
        "sys",
        "test",
        "test1",
        "test2",
        "test3",
        "user",
        "user1",
        "user2",
        "user3",
        "user4",
        "user5",
        "video",
    ]
)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\Z")
_KEY_KINDS = ("ssh-rsa", "ssh-ed25519")


def get(values: Any, path: str) -> Any:
    """The value at a dotted path, `None` where it ends early."""
    for part in path.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def merged(old: Body, new: Body) -> Body:
    """`new` over `old`, object by object; lists and plain values are replaced whole."""
    out = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


def size_of(properties: Body) -> catalogue.Size:
    name = get(properties, "hardwareProfile.vmSize")
    if not name:
        raise missing_parameter("hardwareProfile.vmSize")
    size = catalogue.sizes().get(name.lower())
    if size is None:
        some = ",".join(sorted(s.name for s in catalogue.sizes().values() if s.vcpus == 2))
        raise invalid_parameter(
            "vmSize",
            f"The value {name} provided for the VM size is not valid. The valid sizes in the current region are:"
            f" {some}, … Find out more on the valid VM sizes in each region at https://aka.ms/azure-regions.",
        )
    return size


def check_image(properties: Body, size: catalogue.Size, location: str) -> None:
    image = get(properties, "storageProfile.imageReference")
    if not image:
        raise missing_parameter("storageProfile.imageReference")
    fields = [image.get(part) for part in ("publisher", "offer", "sku", "version")]
    if not all(fields):
        raise missing_parameter("imageReference")
    publisher, offer, sku, version = fields
    architecture = catalogue.IMAGES.get((publisher.lower(), offer.lower(), sku.lower()))
    if architecture is None or (version.lower() != "latest" and not re.fullmatch(r"\d+\.\d+\.\d+", version)):
        raise ArmError(
            404,
            "PlatformImageNotFound",
            f"The platform image '{publisher}:{offer}:{sku}:{version}' is not available. Verify that all fields in the"
            f" storage profile are correct. For more details about storage profile information, please refer to"
            f" https://aka.ms/storageprofile. Location '{location}'.",
            target="imageReference",
        )
    if (architecture == "Arm64") != size.arm64:
        wants = "Arm64" if size.arm64 else "x64"
        raise invalid_parameter(
            "vmSize",
            f"Cannot create a VM of size '{size.name}' because this VM size only supports a CPU Architecture of"
            f" '{wants}', but an image or disk with CPU Architecture '{architecture}' was given. Please check that the"
            " CPU Architecture of the image or disk is compatible with that of the VM size.",
        )


def decode_custom_data(text: Any) -> bytes:
    """The bytes of `customData`. Raises as compute does when it is no base64, or too long."""
    try:
        if len(text) > CUSTOM_DATA_CHARACTERS:
            raise ValueError
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise invalid_parameter(
            "customData",
            "Custom data in OSProfile must be in Base64 encoding and with a maximum length of"
            f" {CUSTOM_DATA_CHARACTERS} characters.",
        ) from None


def check_login(profile: Body) -> None:
    """The admin user, the host's name, and that there is a way to log in."""
    user, host = profile.get("adminUsername"), profile.get("computerName")
    if not host:
        raise missing_parameter("osProfile.computerName")
    if len(host) > 64 or not _HOST.match(host):
        raise invalid_parameter(
            "computerName",
            "Linux host name cannot exceed 64 characters in length or contain the following characters:"
            r" ` ~ ! @ # $ % ^ & * ( ) = + _ [ ] { } \ | ; : ' " + '" , < > / ?.',
        )
    if not user:
        raise missing_parameter("osProfile.adminUsername")
    if user.lower() in _FORBIDDEN_USERS or not _USER.match(user):
        raise invalid_parameter("adminUsername", "The Admin Username specified is not allowed.")
    linux = profile.get("linuxConfiguration") or {}
    keys = get(linux, "ssh.publicKeys") or []
    without_password = linux.get("disablePasswordAuthentication", False)
    if not keys and (without_password or not profile.get("adminPassword")):
        raise invalid_parameter(
            "linuxConfiguration",
            "Authentication using either SSH or by user name and password must be enabled in Linux profile.",
        )
    for key in keys:
        _check_key(key, user)
    password = profile.get("adminPassword")
    if password and not without_password and (len(password) < 6 or len(password) > 72):
        raise invalid_parameter("adminPassword", "The supplied password must be between 6-72 characters long.")


def _check_key(key: Body, user: str) -> None:
    path = f"/home/{user}/.ssh/authorized_keys"
    if key.get("path") not in (None, path):
        raise invalid_parameter(
            "linuxConfiguration.ssh.publicKeys.path",
            f"Destination path for SSH public keys is currently limited to its default value {path}  due to a known"
            " issue in Linux provisioning agent.",
        )
    parts = (key.get("keyData") or "").split()
    good = len(parts) >= 2 and parts[0] in _KEY_KINDS
    if good:
        try:
            blob = base64.b64decode(parts[1], validate=True)
            length = int.from_bytes(blob[:4], "big")
            good = blob[4 : 4 + length].decode("ascii", "replace") == parts[0] and len(blob) > 4 + length
        except (ValueError, binascii.Error):
            good = False
    if not good:
        raise invalid_parameter(
            "linuxConfiguration.ssh.publicKeys.keyData",
            "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid.",
        )


def check_security(cloud: Cloud, properties: Body, subscription: str) -> None:
    wanted = get(properties, "securityProfile.encryptionAtHost")
    if wanted and cloud.features.get((subscription.lower(), "/".join(ENCRYPTION_FEATURE))) != "Registered":
        raise invalid_parameter(
            "securityProfile.encryptionAtHost",
            "The property 'securityProfile.encryptionAtHost' is not valid because the"
            " 'Microsoft.Compute/EncryptionAtHost' feature is not enabled for this subscription.",
        )
    if get(properties, "securityProfile.uefiSettings") and not get(properties, "securityProfile.securityType"):
        raise invalid_parameter(
            "securityProfile.uefiSettings", "Use of UEFI settings requires setting the 'securityType' of the VM."
        )


# What is fixed for a machine's life. A request that leaves one out keeps it; one that names another value is refused.
_FIXED = (
    "osProfile.computerName",
    "osProfile.adminUsername",
    "osProfile.linuxConfiguration.disablePasswordAuthentication",
    "storageProfile.imageReference.publisher",
    "storageProfile.imageReference.offer",
    "storageProfile.imageReference.sku",
    "storageProfile.imageReference.version",
    "storageProfile.imageReference.id",
    "storageProfile.osDisk.createOption",
    "storageProfile.osDisk.name",
    "storageProfile.osDisk.managedDisk.storageAccountType",
    "priority",
    "evictionPolicy",
    "securityProfile.securityType",
    "availabilitySet.id",
)


def check_fixed(new: Body, old: Record) -> None:
    """Refuses a change of what is fixed, and fills in what the request left out."""
    before = old.properties
    for path in _FIXED:
        wanted, has = get(new, path), get(before, path)
        if wanted is not None and wanted != has:
            raise change_not_allowed(path.removeprefix("storageProfile.").removeprefix("availabilitySet."))
    keys = get(new, "osProfile.linuxConfiguration.ssh.publicKeys")
    had = get(before, "osProfile.linuxConfiguration.ssh.publicKeys")
    if keys is not None and [key.get("keyData") for key in keys] != [key.get("keyData") for key in had or []]:
        raise change_not_allowed("linuxConfiguration.ssh.publicKeys")
    custom = get(new, "osProfile.customData")
    if custom is not None and decode_custom_data(custom) != old.inner.get("custom_data", b""):
        raise change_not_allowed("osProfile.customData")
    new["osProfile"] = merged(before["osProfile"], new.get("osProfile", {}))
    storage = new.setdefault("storageProfile", {})
    for name in ("imageReference", "osDisk"):
        storage[name] = merged(before["storageProfile"][name], storage.get(name, {}))
    for name in ("hardwareProfile", "networkProfile", "securityProfile", "priority", "evictionPolicy"):
        if name in before:
            new.setdefault(name, before[name])
