"""The least IAM policy with which `fedspan` can make, change and take down one spec's AWS participants. Pure.

Four kinds of statements: looking (EC2's Describe calls take no resource), making (only in the spec's regions), tagging
what is being made (only as a part of making it), and changing or deleting (only what carries the federation's tag).
And where the spec names them: keys for disks, spot machines.
Actions and the conditions that they take are AWS's (Service Authorization Reference for Amazon EC2, and for KMS; what
EBS needs of a key: Amazon EBS User Guide, requirements for encryption).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# read by the provider plugin after each call, and by fedspan's own checks
LOOK = (
    "ec2:DescribeAccountAttributes",
    "ec2:DescribeAddresses",
    "ec2:DescribeAddressesAttribute",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeIamInstanceProfileAssociations",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceAttribute",
    "ec2:DescribeInstanceCreditSpecifications",
    "ec2:DescribeInstanceStatus",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeKeyPairs",
    "ec2:DescribeNetworkAcls",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRegions",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroupRules",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeTags",
    "ec2:DescribeVolumes",
    "ec2:DescribeVolumesModifications",
    "ec2:DescribeVpcAttribute",
    "ec2:DescribeVpcs",
    "servicequotas:GetAWSDefaultServiceQuota",
    "servicequotas:GetServiceQuota",
    "sts:GetCallerIdentity",
)
MAKE = (
    "ec2:AllocateAddress",
    "ec2:CreateInternetGateway",
    "ec2:CreateNetworkInterface",
    "ec2:CreateRouteTable",
    "ec2:CreateSecurityGroup",
    "ec2:CreateSubnet",
    "ec2:CreateVolume",
    "ec2:CreateVpc",
    "ec2:ImportKeyPair",
    "ec2:RunInstances",
)
# each of these takes the resource's own tags as a condition
CHANGE = (
    "ec2:AssociateAddress",
    "ec2:AssociateRouteTable",
    "ec2:AttachInternetGateway",
    "ec2:AttachNetworkInterface",
    "ec2:AttachVolume",
    "ec2:AuthorizeSecurityGroupEgress",
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:CreateRoute",
    "ec2:DeleteInternetGateway",
    "ec2:DeleteKeyPair",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteRoute",
    "ec2:DeleteRouteTable",
    "ec2:DeleteSecurityGroup",
    "ec2:DeleteSubnet",
    "ec2:DeleteTags",
    "ec2:DeleteVolume",
    "ec2:DeleteVpc",
    "ec2:DetachInternetGateway",
    "ec2:DetachNetworkInterface",
    "ec2:DetachVolume",
    "ec2:DisassociateAddress",
    "ec2:DisassociateRouteTable",
    "ec2:ModifyInstanceAttribute",
    "ec2:ModifyInstanceMetadataOptions",
    "ec2:ModifyNetworkInterfaceAttribute",
    "ec2:ModifySecurityGroupRules",
    "ec2:ModifySubnetAttribute",
    "ec2:ModifyVolume",
    "ec2:ModifyVpcAttribute",
    "ec2:ReleaseAddress",
    "ec2:ReplaceRoute",
    "ec2:RevokeSecurityGroupEgress",
    "ec2:RevokeSecurityGroupIngress",
    "ec2:StartInstances",
    "ec2:StopInstances",
    "ec2:TerminateInstances",
    "ec2:UpdateSecurityGroupRuleDescriptionsEgress",
    "ec2:UpdateSecurityGroupRuleDescriptionsIngress",
)
# calls that take tags for what they make: CreateTags is granted as a part of these, and of nothing else
TAGGING = tuple(
    sorted(
        {action.partition(":")[2] for action in MAKE}
        | {"AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress"}
    )
)
FEDERATION_TAG = "aws:ResourceTag/fedspan:federation"

# The provider plugin asks this of every spot machine that it reads, and cancels its request before it terminates the
# machine; refused, it fails. The requests carry no tags: what is made is one machine, by RunInstances.
LOOK_AT_SPOT = ("ec2:DescribeSpotInstanceRequests",)
END_SPOT = ("ec2:CancelSpotInstanceRequests",)

# what EC2 does with a key of yours for encrypted disks, in the name of whoever makes them
USE_KEY = (
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
)


def policy(
    federation: str,
    regions: Iterable[str],
    parameters: Iterable[str],
    spot: bool = False,
    keys: Iterable[str] = (),
) -> dict[str, Any]:
    """The policy document.

    Args:
        federation: what everything is tagged with.
        regions: where the participants stand, fallback regions included.
        parameters: SSM parameters that name their images.
        spot: a participant asks for a spot machine: its request is read and cancelled; the account's first one makes
            AWS's service-linked role.
        keys: ARNs of the keys that encrypt disks, where they are not AWS's own.
    """
    there = {"StringEquals": {"aws:RequestedRegion": sorted(set(regions))}}
    ours = {"StringEquals": {**there["StringEquals"], FEDERATION_TAG: federation}}
    statements: list[dict[str, Any]] = [
        {"Sid": "Look", "Effect": "Allow", "Action": list(LOOK), "Resource": "*"},
        {"Sid": "Make", "Effect": "Allow", "Action": list(MAKE), "Resource": "*", "Condition": there},
        {
            "Sid": "TagWhatIsBeingMade",
            "Effect": "Allow",
            "Action": ["ec2:CreateTags"],
            "Resource": "*",
            "Condition": {"StringEquals": {**there["StringEquals"], "ec2:CreateAction": list(TAGGING)}},
        },
        {
            "Sid": "ChangeAndDeleteOurs",
            "Effect": "Allow",
            "Action": ["ec2:CreateTags", *CHANGE],
            "Resource": "*",
            "Condition": ours,
        },
    ]
    if named := sorted(f"arn:aws:ssm:*::parameter{name}" for name in set(parameters)):
        actions = ["ssm:GetParameter", "ssm:GetParameters"]
        statements.append({"Sid": "ReadImageIds", "Effect": "Allow", "Action": actions, "Resource": named})
    for number, arn in enumerate(sorted(set(keys)), start=1):
        statements += _key(arn, number)
    if spot:
        look, end = list(LOOK_AT_SPOT), list(END_SPOT)
        statements += [
            {"Sid": "LookAtSpot", "Effect": "Allow", "Action": look, "Resource": "*"},
            {"Sid": "EndSpot", "Effect": "Allow", "Action": end, "Resource": "*", "Condition": there},
            {
                "Sid": "FirstSpotMachine",
                "Effect": "Allow",
                "Action": ["iam:CreateServiceLinkedRole"],
                "Resource": "arn:aws:iam::*:role/aws-service-role/spot.amazonaws.com/*",
                "Condition": {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}},
            },
        ]
    return {"Version": "2012-10-17", "Statement": statements}


def _key(arn: str, number: int) -> list[dict[str, Any]]:
    """To use one key for disks, by EC2 only."""
    through: dict[str, Any] = {"StringEquals": {"kms:ViaService": f"ec2.{arn.split(':')[3]}.amazonaws.com"}}
    granting = {**through, "Bool": {"kms:GrantIsForAWSResource": "true"}}
    return [
        {
            "Sid": f"UseKey{number}",
            "Effect": "Allow",
            "Action": list(USE_KEY),
            "Resource": arn,
            "Condition": through,
        },
        {
            "Sid": f"GrantKey{number}",
            "Effect": "Allow",
            "Action": ["kms:CreateGrant"],
            "Resource": arn,
            "Condition": granting,
        },
    ]
