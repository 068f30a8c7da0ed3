"""The emulated AWS as plain boto3 clients meet it: accounts, images, addresses, what follows from a call."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from deployer.sandbox.aws import images
from deployer.sandbox.aws.accounts import PROFILES, account_of, credentials, credentials_file

from .conftest import Account, Cloud

PARAMETERS = [
    "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id",
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id",
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
]


def test_the_credentials_say_the_account(cloud: Cloud) -> None:
    for number in ("123456789012", "000000000042"):
        caller = Account(cloud, number).client("sts").get_caller_identity()
        assert caller["Account"] == number
        assert number in caller["Arn"]
    assert account_of("AKIAIOSFODNN7EXAMPLE") is None


def test_profiles_of_the_credentials_file_are_the_accounts(
    cloud: Cloud, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text(credentials_file())
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    for name, number in PROFILES.items():
        session = boto3.Session(profile_name=name, region_name="eu-west-1")
        assert session.client("sts", endpoint_url=cloud.server.url).get_caller_identity()["Account"] == number


@pytest.mark.parametrize(
    ("service", "method", "code"),
    [
        ("ec2", "describe_vpcs", "AuthFailure"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("ssm", "describe_parameters", "UnrecognizedClientException"),
    ],
)
def test_credentials_that_are_not_the_sandboxs_are_refused(cloud: Cloud, service: str, method: str, code: str) -> None:
    client = boto3.client(
        service,  # type: ignore[call-overload]
        region_name="eu-west-1",
        endpoint_url=cloud.server.url,
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="x",
    )
    with pytest.raises(ClientError) as caught:
        getattr(client, method)()
    assert caught.value.response["Error"]["Code"] == code


def test_an_unsigned_request_is_refused(cloud: Cloud) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{cloud.server.url}/?Action=DescribeVpcs&Version=2016-11-15")
    assert caught.value.code == 401


def test_other_services_are_not_there_and_say_so(account: Account) -> None:
    with pytest.raises(ClientError, match="the sandbox emulates ec2, sts, ssm, servicequotas of AWS, not sqs"):
        account.client("sqs").list_queues()


@pytest.mark.parametrize("parameter", PARAMETERS)
@pytest.mark.parametrize("region", ["eu-central-1", "eu-west-1", "us-east-1", "us-west-2"])
def test_parameters_lead_to_images_that_exist_there(account: Account, region: str, parameter: str) -> None:
    found = account.client("ssm", region).get_parameter(Name=parameter)["Parameter"]
    assert found["DataType"] == "aws:ec2:image"
    image = account.client("ec2", region).describe_images(ImageIds=[found["Value"]])["Images"][0]
    assert image["OwnerId"] == (images.CANONICAL if "canonical" in parameter else images.AMAZON)
    assert image["RootDeviceName"] == "/dev/sda1"


def test_images_differ_between_regions() -> None:
    amis = {image.ami(region) for image in images.IMAGES for region in ("eu-west-1", "us-east-1")}
    assert len(amis) == 2 * len(images.IMAGES)


def test_an_unknown_parameter_and_an_unknown_region(account: Account) -> None:
    with pytest.raises(ClientError, match="ParameterNotFound"):
        account.client("ssm").get_parameter(Name="/aws/service/nothing")
    with pytest.raises(ClientError, match="there is no region eu-nowhere-1"):
        account.client("ec2", "eu-nowhere-1").describe_vpcs()


def test_accounts_and_regions_do_not_see_each_other(account: Account) -> None:
    other = Account(account.cloud, f"9{account.id[1:]}")
    made = account.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    for client in (other.ec2, account.client("ec2", "eu-west-1")):
        with pytest.raises(ClientError, match=r"InvalidVpcID\.NotFound"):
            client.describe_vpcs(VpcIds=[made])


def test_elastic_ips_come_from_the_pool_and_go_back(account: Account) -> None:
    pool, before = account.cloud.pool, account.cloud.pool.owned()
    made = account.ec2.allocate_address(Domain="vpc")
    assert made["PublicIp"] in pool.owned()
    assert account.id in pool.owned()[made["PublicIp"]]
    account.ec2.release_address(AllocationId=made["AllocationId"])
    assert pool.owned() == before


def test_a_refused_allocation_takes_no_address(account: Account) -> None:
    for _ in range(5):
        account.ec2.allocate_address(Domain="vpc")
    before = account.cloud.pool.owned()
    with pytest.raises(ClientError, match="AddressLimitExceeded"):
        account.ec2.allocate_address(Domain="vpc")
    assert account.cloud.pool.owned() == before


def test_a_change_is_told_a_question_is_not(account: Account) -> None:
    changes = account.cloud.changes
    account.ec2.describe_vpcs()
    before = len(changes)
    account.ec2.describe_vpcs()
    assert len(changes) == before
    account.ec2.create_vpc(CidrBlock="10.9.0.0/16")
    assert len(changes) == before + 1


def test_private_addresses_are_handed_out_in_order(account: Account) -> None:
    net, ec2 = account.network(), account.ec2
    second = ec2.create_network_interface(SubnetId=net["subnet"])["NetworkInterface"]["PrivateIpAddress"]
    machine = ec2.describe_instances(InstanceIds=[account.run(SubnetId=net["subnet"])])["Reservations"][0]
    assert second == "10.9.1.5"  # the network's own interface has .4, AWS the first four
    assert machine["Instances"][0]["PrivateIpAddress"] == "10.9.1.6"


def test_a_machine_stands_in_the_zone_of_its_interface(account: Account) -> None:
    net = account.network(zone="eu-central-1c")
    machine = account.run(net["eni"])
    found = account.ec2.describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]
    assert found["Placement"]["AvailabilityZone"] == "eu-central-1c"
    disk = found["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    volume = account.ec2.describe_volumes(VolumeIds=[disk])["Volumes"][0]
    assert (volume["AvailabilityZone"], volume["Size"], volume["VolumeType"]) == ("eu-central-1c", 8, "gp3")


def test_after_a_termination_interface_and_address_are_free_and_the_disk_is_gone(account: Account) -> None:
    net, ec2 = account.network(), account.ec2
    address = account.address(net["eni"])
    machine = account.run(net["eni"])
    assert ec2.describe_addresses(AllocationIds=[address["id"]])["Addresses"][0]["InstanceId"] == machine
    ec2.terminate_instances(InstanceIds=[machine])
    eni = ec2.describe_network_interfaces(NetworkInterfaceIds=[net["eni"]])["NetworkInterfaces"][0]
    assert eni["Status"] == "available"
    assert eni["Association"]["PublicIp"] == address["ip"]
    assert not ec2.describe_addresses(AllocationIds=[address["id"]])["Addresses"][0].get("InstanceId")
    assert ec2.describe_volumes()["Volumes"] == []
    second = account.run(net["eni"])  # the interface carries the address to the next machine
    assert [(m.id, m.public_ip) for m in account.machines()] == [(second, address["ip"])]


def test_an_interface_made_by_a_launch_goes_with_its_machine(account: Account) -> None:
    net, ec2 = account.network(), account.ec2
    machine = account.run(SubnetId=net["subnet"], SecurityGroupIds=[net["group"]])
    assert len(ec2.describe_network_interfaces()["NetworkInterfaces"]) == 2
    ec2.terminate_instances(InstanceIds=[machine])
    assert [e["NetworkInterfaceId"] for e in ec2.describe_network_interfaces()["NetworkInterfaces"]] == [net["eni"]]


def test_an_address_whose_interface_is_deleted_is_free(account: Account) -> None:
    net, ec2 = account.network(), account.ec2
    address = account.address(net["eni"])
    ec2.delete_network_interface(NetworkInterfaceId=net["eni"])
    assert "AssociationId" not in ec2.describe_addresses(AllocationIds=[address["id"]])["Addresses"][0]
    ec2.release_address(AllocationId=address["id"])


def test_a_stopped_server_forgets_everything(cloud: Cloud) -> None:
    """In a process of its own: moto's state belongs to the process, and others are using this one's."""
    import subprocess
    import sys

    script = (
        "import boto3\n"
        "from deployer.sandbox.aws import MotoServer, inventory\n"
        "from deployer.sandbox.aws.accounts import credentials\n"
        "who = credentials('123456789012')\n"
        "def ec2(url):\n"
        "    return boto3.client('ec2', region_name='eu-west-1', endpoint_url=url,\n"
        "                        aws_access_key_id=who.access_key, aws_secret_access_key=who.secret_key)\n"
        "server = MotoServer()\n"
        "print(inventory())\n"
        "ec2(server.start()).create_vpc(CidrBlock='10.0.0.0/16')\n"
        "print(len(inventory()))\n"
        "server.stop()\n"
        "print(inventory())\n"
        "again = MotoServer()\n"
        "print(len(ec2(again.start()).describe_vpcs()['Vpcs']), len(inventory()))\n"
        "again.stop()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["[]", "1", "[]", "1 0"], done.stderr


def test_no_environment_variable_leads_the_plugins_clients_elsewhere(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployer.sandbox.aws.provider import Clients

    for name, value in {
        "AWS_PROFILE": "no-such-profile",
        "AWS_ENDPOINT_URL": "http://198.51.100.1:1",
        "http_proxy": "http://198.51.100.1:1",
        "HTTP_PROXY": "http://198.51.100.1:1",
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)
    client = Clients(cloud.server.url).get(credentials("123456789012"), "sts", "eu-west-1")
    assert client.get_caller_identity()["Account"] == "123456789012"
    assert isinstance(client.meta.config, Config)
