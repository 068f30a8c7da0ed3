"""One emulated AWS for all tests here; each test gets an account of its own, so that none sees another's resources."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deployer.sandbox import faults
from deployer.sandbox.addresses import AddressPool
from deployer.sandbox.aws import AwsProvider, MotoServer, inventory, machines
from deployer.sandbox.aws.accounts import credentials
from deployer.sandbox.faults import Faults
from deployer.sandbox.model import InventoryItem, MachineSpec

from .aws_engine import Engine, serving

REGION = "eu-central-1"
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
_numbers = itertools.count(1)
_session = boto3.Session()  # one, as each has to load the service's description


def public_key() -> str:
    raw = Ed25519PrivateKey.generate().public_key()
    return raw.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode() + " test"


@dataclass
class Cloud:
    """The emulated AWS and what a test sees of it."""

    server: MotoServer
    pool: AddressPool
    changes: list[int] = field(default_factory=list)


@dataclass
class Account:
    """One account: plain boto3 clients, and shortcuts to what most tests need first."""

    cloud: Cloud
    id: str

    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, service: str, region: str = REGION) -> Any:
        if (service, region) not in self._clients:
            who = credentials(self.id)
            self._clients[service, region] = _session.client(
                service,  # type: ignore[call-overload]
                region_name=region,
                endpoint_url=self.cloud.server.url,
                aws_access_key_id=who.access_key,
                aws_secret_access_key=who.secret_key,
                config=Config(retries={"total_max_attempts": 1}, proxies={}),
            )
        return self._clients[service, region]

    @property
    def ec2(self) -> Any:
        return self.client("ec2")

    def image(self) -> str:
        return str(self.client("ssm").get_parameter(Name=UBUNTU)["Parameter"]["Value"])

    def network(self, *, gateway: bool = True, zone: str = "eu-central-1a") -> dict[str, str]:
        """A VPC with a subnet, a group, and an interface; with a gateway and the route to it, or without."""
        ec2 = self.ec2
        vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName="group", Description="a group", VpcId=vpc)["GroupId"]
        made = {"vpc": vpc, "subnet": subnet, "group": group}
        if gateway:
            made["gateway"] = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
            ec2.attach_internet_gateway(InternetGatewayId=made["gateway"], VpcId=vpc)
            made["table"] = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
            ec2.create_route(RouteTableId=made["table"], DestinationCidrBlock="0.0.0.0/0", GatewayId=made["gateway"])
            ec2.associate_route_table(RouteTableId=made["table"], SubnetId=subnet)
        made["eni"] = ec2.create_network_interface(SubnetId=subnet, Groups=[group])["NetworkInterface"][
            "NetworkInterfaceId"
        ]
        return made

    def address(self, eni: str) -> dict[str, str]:
        ec2 = self.ec2
        made = ec2.allocate_address(Domain="vpc")
        ec2.associate_address(AllocationId=made["AllocationId"], NetworkInterfaceId=eni)
        return {"id": made["AllocationId"], "ip": made["PublicIp"]}

    def run(self, eni: str | None = None, **more: Any) -> str:
        given: dict[str, Any] = {"ImageId": self.image(), "InstanceType": "m7i.large", "MinCount": 1, "MaxCount": 1}
        if eni:
            given["NetworkInterfaces"] = [{"DeviceIndex": 0, "NetworkInterfaceId": eni}]
        return str(self.ec2.run_instances(**{**given, **more})["Instances"][0]["InstanceId"])

    def machines(self) -> list[MachineSpec]:
        return [machine for machine in machines() if machine.account == self.id]

    def inventory(self) -> list[InventoryItem]:
        return [item for item in inventory() if item.account == self.id]


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    pool = AddressPool("127.200.0.0/22")
    changes: list[int] = []
    server = MotoServer(lambda: changes.append(1), pool)
    server.start()
    try:
        yield Cloud(server, pool, changes)
    finally:
        server.stop()


@pytest.fixture
def account(cloud: Cloud) -> Account:
    return Account(cloud, f"{next(_numbers):012d}")


@pytest.fixture
def engine(account: Account) -> Iterator[Engine]:
    """An engine connected to a fresh plugin, configured for the test's account."""
    with serving(AwsProvider(account.cloud.server.url)) as address:
        yield Engine(address).configure(region=REGION, accessKey=credentials(account.id).access_key)


@pytest.fixture
def fault() -> Iterator[Callable[..., None]]:
    """Sets faults for the test; none are left after it."""
    book = faults.book()
    yield lambda **what: book.write(Faults.from_json(what))
    book.write(Faults())


@pytest.fixture
def refused() -> Callable[..., str]:
    """Calls the API, which must refuse with the given code; answers the message."""

    def call(code: str, method: Callable[..., Any], **arguments: Any) -> str:
        with pytest.raises(ClientError) as caught:
            method(**arguments)
        said = caught.value.response["Error"]
        assert said["Code"] == code, said
        return str(said["Message"])

    return call
