"""What a participant uses of an account's own: network, security group, image, key. Named by ID, never made or deleted.

Pure data; what one of the clouds can't use is told by its field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stacks.errors import StackArgumentError
from stacks.names import Cloud

_AWS = {
    "vpc": re.compile(r"vpc-[0-9a-f]{8,17}"),
    "subnet": re.compile(r"subnet-[0-9a-f]{8,17}"),
    "security_group": re.compile(r"sg-[0-9a-f]{8,17}"),
    "image": re.compile(r"ami-[0-9a-f]{8,17}"),
    "kms_key": re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[\w-]+"),
}
_ALIAS = re.compile(r"(?:arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:)?(?P<id>alias/[\w/-]+)")
_AZURE_KINDS = {
    "subnet": "Microsoft.Network/virtualNetworks/{}/subnets/{}",
    "security_group": "Microsoft.Network/networkSecurityGroups/{}",
    "image": "Microsoft.Compute/images/{}",
    "kms_key": "Microsoft.Compute/diskEncryptionSets/{}",
}
_GALLERY = "Microsoft.Compute/galleries/{}/images/{}/versions/{}"


@dataclass(frozen=True, kw_only=True)
class Existing:
    """IDs as the cloud writes them (`subnet-0abc…`, `/subscriptions/…`).

    Attributes:
        vpc: AWS only, and only together with `subnet`.
        subnet: the machine's; then no network is made, and its way out is that network's.
        security_group: its rules decide who gets in; then no rule is made.
        private: no public address: reached through a bastion, and its way out is the subnet's.
        image: instead of the clouds' own.
        kms_key: a key of yours that encrypts the disks: AWS's key ARN (no alias), Azure's disk encryption set.
    """

    vpc: str | None = None
    subnet: str | None = None
    security_group: str | None = None
    private: bool = False
    image: str | None = None
    kms_key: str | None = None

    def check(self, cloud: Cloud, participant: str) -> None:
        """Raise `StackArgumentError` for an ID of another kind or cloud, and for what does not go together."""

        def fail(name: str, what: str, next_step: str | None = None) -> StackArgumentError:
            return StackArgumentError(name, what, participant=participant, next_step=next_step)

        if cloud == "azure" and self.vpc:
            raise fail("network.vpc", "is AWS's; on Azure the subnet's ID names its network", "network: {subnet: ID}")
        if cloud == "aws" and bool(self.vpc) != bool(self.subnet):
            raise fail("network.vpc", "goes with network.subnet", "network: {vpc: vpc-…, subnet: subnet-…}")
        if (self.private or self.security_group) and not self.subnet:
            what = "private" if self.private else "security_group"
            raise fail(f"network.{what}", "goes with network.subnet: in a network of fedspan's own nobody could use it")
        for name in ("vpc", "subnet", "security_group", "image", "kms_key"):
            value = getattr(self, name)
            if value is None or _fits(cloud, name, value):
                continue
            if cloud == "aws" and name == "kms_key" and (alias := _ALIAS.fullmatch(value)):
                # EC2 answers with the key's own ARN: each preview would find another key, and replace the volume
                told = f"{value!r} is an alias, which may mean another key tomorrow; a volume needs the key's own ARN"
                ask = f"aws kms describe-key --key-id {alias['id']} --query KeyMetadata.Arn --output text"
                raise fail(name, told, f"{ask} prints it")
            raise fail(name, f"{value!r} is no ID of {cloud} for that", _example(cloud, name))


def _fits(cloud: Cloud, name: str, value: str) -> bool:
    if cloud == "aws":
        return bool(_AWS[name].fullmatch(value))
    kinds = [_AZURE_KINDS[name], *([_GALLERY] if name == "image" else [])]
    place = r"/subscriptions/[0-9a-fA-F-]{36}/resourceGroups/[\w().-]+/providers/"
    return any(re.fullmatch(place + kind.replace(".", r"\.").replace("{}", r"[\w.-]+"), value, re.I) for kind in kinds)


def _example(cloud: Cloud, name: str) -> str:
    if cloud == "aws":
        return {"kms_key": "arn:aws:kms:REGION:ACCOUNT:key/…"}.get(name, f"like {name.split('_')[0]}-0abc…")
    return "/subscriptions/…/resourceGroups/…/providers/" + _AZURE_KINDS[name].format("…", "…")
