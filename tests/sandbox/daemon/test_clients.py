"""What the deployer gets from a sandbox: environments, plugins, machines of both clouds, the world outside."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asyncssh
import boto3
import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2_grpc

from deployer.errors import CredentialsError, SandboxError
from deployer.sandbox.client import Sandbox
from deployer.sandbox.machines.tree import descendants, start_time

KEY = asyncssh.generate_private_key("ssh-ed25519")
PUBLIC = KEY.export_public_key().decode().strip()


def plugin_versions(providers: str) -> dict[str, str]:
    """Asks each plugin server of a PULUMI_DEBUG_PROVIDERS value who it is."""
    found = {}
    for entry in providers.split(","):
        package, port = entry.split(":")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            found[package] = stub.GetPluginInfo(empty_pb2.Empty(), timeout=60).version
    return found


def is_open(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(2)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def ports_of(providers: str) -> list[int]:
    return [int(entry.split(":")[1]) for entry in providers.split(",")]


def test_importing_the_client_loads_no_heavy_package() -> None:
    code = (
        "import sys; import deployer.sandbox.client, deployer.cli.sandbox; "
        "print([m for m in ('boto3', 'moto', 'grpc', 'pulumi', 'azure', 'asyncssh', 'flask', 'yaml', 'cryptography')"
        " if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_each_lease_has_plugins_of_its_own_and_they_end_with_it(sandbox: Sandbox) -> None:
    with sandbox.plugins() as one, sandbox.plugins() as two:
        assert set(plugin_versions(one)) == {"aws", "azure-native"}
        assert plugin_versions(two) == plugin_versions(one)
        assert not set(ports_of(one)) & set(ports_of(two))
        assert len(sandbox.status()["leases"]) == 2
    assert sandbox.status()["leases"] == []
    assert not any(is_open(port) for port in ports_of(one) + ports_of(two))


def test_plugins_end_when_the_process_that_leased_them_is_killed(sandbox: Sandbox) -> None:
    code = (
        "import time; from deployer.sandbox.client import Sandbox\n"
        "with Sandbox.ensure().plugins() as value:\n    print(value, flush=True)\n    time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    providers = process.stdout.readline().strip()
    assert all(is_open(port) for port in ports_of(providers))
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 60
    while any(is_open(port) for port in ports_of(providers)):
        assert time.monotonic() < deadline, "the plugins outlive their owner"
        time.sleep(0.1)
    assert sandbox.status()["leases"] == []


def test_environments_hold_dummies_only_and_lead_only_here(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN", "ARM_CLIENT_SECRET", "AZURE_CLIENT_ID"):
        monkeypatch.setenv(name, "operators-secret")
    everything = {**sandbox.aws_environment(), **sandbox.azure_environment()}
    assert "operators-secret" not in everything.values()
    for name, value in everything.items():
        if "://" in value:
            assert value.split("://")[1].startswith("127."), name
    assert everything["AWS_EC2_METADATA_DISABLED"] == "true"
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        assert everything[name].startswith(str(sandbox.home)), name
        assert os.path.exists(everything[name]), name
    # Nor has the daemon anything of the operator's.
    assert b"operators-secret" not in Path(f"/proc/{sandbox.status()['pid']}/environ").read_bytes()


def account(environment: dict[str, str]) -> str:
    session = boto3.Session(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    client = session.client("sts", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="eu-west-1")
    return str(client.get_caller_identity()["Account"])


def test_profiles_are_accounts(sandbox: Sandbox) -> None:
    assert account(sandbox.aws_environment()) == "111111111111"
    assert account(sandbox.aws_environment("hospital-b")) == "222222222222"
    with pytest.raises(CredentialsError, match="no AWS profile hospital-x"):
        sandbox.aws_environment("hospital-x")
    assert sandbox.register_profile("hospital-x", "999999999999") == "999999999999"
    assert account(sandbox.aws_environment("hospital-x")) == "999999999999"
    assert sandbox.register_profile("hospital-b", "333333333333") == "222222222222"
    # By the shared files alone, as a person's own tools would.
    environment = sandbox.aws_environment("hospital-x")
    code = (
        "import boto3; print(boto3.Session(profile_name='hospital-x').client('sts').get_caller_identity()['Account'])"
    )
    del environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], environment["AWS_ENDPOINT_URL"]
    out = subprocess.check_output([sys.executable, "-c", code], text=True, env={**environment, "PATH": os.defpath})
    assert out.strip() == "999999999999"


def test_any_subscription_named_in_a_spec_exists(sandbox: Sandbox) -> None:
    other = "00000000-0000-0000-0000-00000000abcd"
    assert sandbox.azure_environment(other)["ARM_SUBSCRIPTION_ID"] == other
    assert sandbox.azure_environment()["ARM_SUBSCRIPTION_ID"] != other


async def _whoami(address: str, port: int, user: str) -> str:
    async with asyncssh.connect(
        address, port, username=user, client_keys=[KEY], known_hosts=None, config=None
    ) as connection:
        return str((await connection.run("whoami; echo $USER", check=True)).stdout).split()[-1]


def ssh(address: str, port: int, user: str) -> str:
    return asyncio.run(_whoami(address, port, user))


def aws_machine(sandbox: Sandbox) -> tuple[Any, str, str]:
    """(EC2 client, instance id, address): an instance with an Elastic IP that SSH may reach from this workstation."""
    ec2 = boto3.Session("AKIASBOX111111111111", "x", region_name="eu-central-1").client(
        "ec2", endpoint_url=sandbox.aws_endpoints()["ec2"]
    )
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    group = ec2.create_security_group(GroupName="ssh", Description="ssh", VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=group, IpProtocol="tcp", FromPort=sandbox.ssh_port, ToPort=sandbox.ssh_port, CidrIp="198.51.100.10/32"
    )
    eni = ec2.create_network_interface(SubnetId=subnet, Groups=[group])["NetworkInterface"]["NetworkInterfaceId"]
    address = ec2.allocate_address(Domain="vpc")
    ec2.associate_address(AllocationId=address["AllocationId"], NetworkInterfaceId=eni)
    image = boto3.Session("AKIASBOX111111111111", "x", region_name="eu-central-1").client(
        "ssm", endpoint_url=sandbox.aws_endpoints()["ssm"]
    )
    name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
    ami = image.get_parameter(Name=name)["Parameter"]["Value"]
    data = (
        "#cloud-config\n"
        f"users: [{{name: fedspan, ssh_authorized_keys: ['{PUBLIC}']}}]\n"
        f"write_files: [{{path: /etc/ssh/sshd_config.d/1.conf, content: Port {sandbox.ssh_port}}}]\n"
    )
    instance = ec2.run_instances(
        ImageId=ami,
        InstanceType="m7i.large",
        MinCount=1,
        MaxCount=1,
        UserData=data,
        NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": eni}],
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "fedspan:participant", "Value": "site-1"}]},
        ],
    )["Instances"][0]["InstanceId"]
    return ec2, instance, address["PublicIp"]


def test_an_instance_of_the_emulated_aws_is_a_machine_and_follows_its_state(sandbox: Sandbox) -> None:
    ec2, instance, address = aws_machine(sandbox)
    assert sandbox.settle()
    machine = next(m for m in sandbox.machines() if m["id"] == instance)
    assert (machine["name"], machine["state"], machine["public_ip"]) == ("site-1", "running", address)
    assert ssh(address, sandbox.ssh_port, "fedspan") == "fedspan"
    assert any(item.id == instance and item.kind == "ec2:instance" for item in sandbox.inventory())
    ec2.stop_instances(InstanceIds=[instance])
    assert sandbox.settle()
    assert next(m for m in sandbox.machines() if m["id"] == instance)["state"] == "stopped"
    with pytest.raises(OSError, match="111"):
        ssh(address, sandbox.ssh_port, "fedspan")
    ec2.start_instances(InstanceIds=[instance])
    assert sandbox.settle()
    assert ssh(address, sandbox.ssh_port, "fedspan") == "fedspan"
    pid = next(m for m in sandbox.machines() if m["id"] == instance)["pid"]
    ec2.reboot_instances(InstanceIds=[instance])
    assert sandbox.settle()
    assert next(m for m in sandbox.machines() if m["id"] == instance)["pid"] != pid
    ec2.terminate_instances(InstanceIds=[instance])
    assert sandbox.settle()
    assert sandbox.machines() == []


def test_a_host_without_a_cloud_is_reached_by_its_key_and_seen_as_its_hospital(sandbox: Sandbox) -> None:
    address = sandbox.host("box", "ana", PUBLIC, egress="203.0.113.9")
    assert sandbox.host("box", "ana", PUBLIC) == address
    assert ssh(address, sandbox.ssh_port, "ana") == "ana"
    assert sandbox.status()["world"][address] == "203.0.113.9"
    sandbox.remove_host("box")
    with pytest.raises(OSError, match="111"):
        ssh(address, sandbox.ssh_port, "ana")


def test_what_ran_on_a_killed_machine_is_found_though_it_hid_everything(sandbox: Sandbox) -> None:
    address = sandbox.host("hiding", "ana", PUBLIC)
    command = "cd / && env -i /bin/sh -c 'setsid sleep 989 > /dev/null 2>&1 < /dev/null & setsid sleep 990 &'"

    async def hide() -> None:
        async with asyncssh.connect(
            address, sandbox.ssh_port, username="ana", client_keys=[KEY], known_hosts=None, config=None
        ) as connection:
            await connection.run(f"{command} > /dev/null 2>&1 < /dev/null; sleep 0.2")

    asyncio.run(hide())
    machine = next(m for m in sandbox.machines() if m["name"] == "hiding")
    hidden = [pid for pid, zombie in descendants(machine["pid"]).items() if not zombie]
    assert len(hidden) == 2
    os.kill(machine["pid"], 9)
    deadline = time.monotonic() + 60
    while any(start_time(pid) for pid in hidden):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    sandbox.remove_host("hiding")


def test_a_kit_run_here_comes_from_its_hospitals_address(sandbox: Sandbox) -> None:
    proxy = sandbox.on_premises("203.0.113.7")
    assert sandbox.on_premises("203.0.113.7/32") == proxy
    assert sandbox.on_premises("203.0.113.8") != proxy
    source = proxy.removeprefix("http://").split(":")[0]
    assert sandbox.status()["world"][source] == "203.0.113.7"
    assert sandbox.my_address() == sandbox.status()["world"]["127.0.0.1"]
    host = sandbox.host("echo", "ana", PUBLIC)
    with socket.create_connection((source, int(proxy.rsplit(":", 1)[1])), timeout=10) as sock:
        sock.sendall(f"CONNECT {host}:{sandbox.ssh_port} HTTP/1.1\r\n\r\n".encode())
        answer = b""
        while b"SSH-2.0" not in answer:
            chunk = sock.recv(4096)
            assert chunk, answer
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 200")
    sandbox.remove_host("echo")
    for wrong in ("127.0.0.1", "0.0.0.0", "example.org", "224.0.0.1"):
        with pytest.raises(SandboxError):
            sandbox.on_premises(wrong)
