"""Quotas that can be set and that EC2 refuses by; an IAM policy that is all that an account may do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deployer.policy_aws import policy
from deployer.sandbox.aws import permissions, quotas

from .conftest import REGION, UBUNTU, Account

TAGS = [{"Key": "fedspan:federation", "Value": "digits"}]


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    quotas.forget()
    permissions.forget()


def vpc(account: Account, *, tagged: bool = True) -> Any:
    specifications = [{"ResourceType": "vpc", "Tags": TAGS}] if tagged else []
    return account.ec2.create_vpc(CidrBlock="10.9.0.0/16", TagSpecifications=specifications)["Vpc"]["VpcId"]


def test_a_quota_is_told_and_kept(account: Account) -> None:
    client = account.client("service-quotas")
    told = client.get_service_quota(ServiceCode="vpc", QuotaCode="L-F678F1CE")["Quota"]
    assert (told["QuotaName"], told["Value"]) == ("VPCs per Region", 5.0)
    quotas.set_quota(account.id, REGION, "L-F678F1CE", 1)
    assert client.get_service_quota(ServiceCode="vpc", QuotaCode="L-F678F1CE")["Quota"]["Value"] == 1.0
    with pytest.raises(ClientError, match="VpcLimitExceeded"):  # every region has a VPC from the start
        vpc(account)
    with pytest.raises(client.exceptions.NoSuchResourceException):
        client.get_service_quota(ServiceCode="ec2", QuotaCode="L-00000000")


def test_vcpus_of_a_family_are_counted(account: Account) -> None:
    quotas.set_quota(account.id, REGION, "L-1216C47A", 3)
    account.ec2.run_instances(ImageId=account.image(), InstanceType="m7i.large", MinCount=1, MaxCount=1)
    with pytest.raises(ClientError, match="VcpuLimitExceeded"):
        account.ec2.run_instances(ImageId=account.image(), InstanceType="m7i.large", MinCount=1, MaxCount=1)


def test_only_what_the_policy_allows_is_done(account: Account) -> None:
    stranger = vpc(account, tagged=False)
    permissions.set_policy(account.id, policy("digits", [REGION], [UBUNTU]))
    ours = vpc(account)
    account.ec2.delete_vpc(VpcId=ours)
    with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:DeleteVpc"):
        account.ec2.delete_vpc(VpcId=stranger)
    with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:CreateVpc"):
        account.client("ec2", "eu-west-1").create_vpc(CidrBlock="10.9.0.0/16")
    with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:CreateNatGateway"):
        account.ec2.create_nat_gateway(SubnetId="subnet-00000000000000000")
    assert account.image().startswith("ami-")
    with pytest.raises(ClientError, match=r"AccessDeniedException.*ssm:GetParameter"):
        account.client("ssm").get_parameter(Name="/aws/service/something/else")


def test_tags_on_create_need_their_own_right(account: Account) -> None:
    document = policy("digits", [REGION], [UBUNTU])
    kept = [one for one in document["Statement"] if one["Sid"] != "TagWhatIsBeingMade"]
    permissions.set_policy(account.id, {**document, "Statement": kept})
    with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:CreateTags"):
        vpc(account)
    assert account.ec2.describe_vpcs(Filters=[{"Name": "tag:fedspan:federation", "Values": ["digits"]}])["Vpcs"] == []
    vpc(account, tagged=False)


def test_a_policy_that_the_emulation_does_not_understand_is_refused() -> None:
    with pytest.raises(ValueError, match="knows statements that allow"):
        permissions.set_policy("1" * 12, {"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]})
    condition = {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}
    with pytest.raises(ValueError, match="does not know the condition IpAddress"):
        permissions.set_policy("1" * 12, {"Statement": [statement]})
