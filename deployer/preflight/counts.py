"""How many networks, gateways and addresses a region may hold, holds, and is going to hold."""

from __future__ import annotations

from collections.abc import Iterable

from deployer.preflight.model import Finding
from deployer.preflight.place import Place, asking
from deployer.preflight.quota import aws_quota, compared

# Pulumi type, service, quota's code, client's call, key of its answer, right
_AWS = (
    ("aws:ec2/vpc:Vpc", "vpc", "L-F678F1CE", "describe_vpcs", "Vpcs", "ec2:DescribeVpcs"),
    (
        "aws:ec2/internetGateway:InternetGateway",
        "vpc",
        "L-A4707A72",
        "describe_internet_gateways",
        "InternetGateways",
        "ec2:DescribeInternetGateways",
    ),
    ("aws:ec2/eip:Eip", "ec2", "L-0263D0A3", "describe_addresses", "Addresses", "ec2:DescribeAddresses"),
)
# Azure's own names of usages -> Pulumi type; a name that the answer lacks is not counted there
_AZURE = {
    "virtualnetworks": "azure-native:network:VirtualNetwork",
    "networksecuritygroups": "azure-native:network:NetworkSecurityGroup",
    "networkinterfaces": "azure-native:network:NetworkInterface",
    "publicipaddresses": "azure-native:network:PublicIPAddress",
    "staticpublicipaddresses": "azure-native:network:PublicIPAddress",
    "standardskupublicipaddresses": "azure-native:network:PublicIPAddress",
    "ipv4standardskupublicipaddresses": "azure-native:network:PublicIPAddress",
}


def check(place: Place) -> Iterable[Finding]:
    """Only of what is going to be made."""
    yield from _aws(place) if place.cloud == "aws" else _azure(place)


def _aws(place: Place) -> Iterable[Finding]:
    for kind, service, code, call, key, right in _AWS:
        if (need := place.makes(kind)) == 0:
            continue
        with asking(right):
            used = len(getattr(place.aws("ec2"), call)()[key])
        name, limit = aws_quota(place, service, code)
        step = (
            f"aws service-quotas request-service-quota-increase --service-code {service} --quota-code {code} "
            f"--desired-value {used + need} --region {place.region}; or another region, or an account for each site"
        )
        yield compared(place, name, used, need, limit, step)


def _azure(place: Place) -> Iterable[Finding]:
    with asking("Microsoft.Network/locations/usages/read"):
        usages = list(place.azure.network.usages.list(place.region))
    for usage in usages:
        kind = _AZURE.get(str(usage.name.value).replace(" ", "").lower())
        if kind is None or (need := place.makes(kind)) == 0:
            continue
        name = usage.name.localized_value or usage.name.value
        step = f"ask for more: portal, Quotas, Networking, {place.region}, {name}; or another region"
        yield compared(place, name, int(usage.current_value), need, int(usage.limit), step)
