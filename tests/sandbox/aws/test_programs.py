"""Real SDK programs through the Automation API, the engine and the plugin: up, refresh, change, destroy.

The engine is the sandbox's stand-in, or the command in `--pulumi-root DIR` where the suite is given one.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest
from pulumi import automation as auto
from pulumi_aws import ebs, ec2, ssm, vpc

from deployer.sandbox import engine
from deployer.sandbox.aws import AwsProvider
from deployer.sandbox.aws.accounts import credentials

from .aws_engine import serving
from .conftest import REGION, UBUNTU, Account, public_key

Program = Callable[[aws.Provider], None]


@dataclass
class Runner:
    """One stack: runs programs with an explicit provider for the test's account."""

    account: Account
    folder: Path
    root: Path
    port: str
    errors: list[str] = field(default_factory=list)

    def stack(self, program: Program | None = None) -> auto.Stack:
        def inline() -> None:
            provider = aws.Provider(
                "provider",
                region=REGION,
                access_key=credentials(self.account.id).access_key,
                secret_key="x",
                allowed_account_ids=[self.account.id],
                default_tags=aws.ProviderDefaultTagsArgs(tags={"project": "test"}),
                endpoints=[aws.ProviderEndpointArgs(ec2=self.account.cloud.server.url)],
                skip_metadata_api_check=True,
            )
            if program is not None:
                program(provider)

        backend = f"file://{self.folder / 'state'}"
        return auto.create_or_select_stack(
            "dev",
            "programs",
            inline,
            opts=auto.LocalWorkspaceOptions(
                work_dir=str(self.folder / "work"),
                pulumi_home=str(self.folder / "home"),
                pulumi_command=auto.PulumiCommand(root=str(self.root)),
                secrets_provider="passphrase",
                env_vars={
                    "PULUMI_DEBUG_PROVIDERS": f"aws:{self.port}",
                    "PULUMI_BACKEND_URL": backend,
                    "PULUMI_CONFIG_PASSPHRASE": "test",
                },
                project_settings=auto.ProjectSettings(
                    name="programs", runtime="python", backend=auto.ProjectBackend(url=backend)
                ),
            ),
        )

    def up(self, program: Program, **more: Any) -> dict[str, int]:
        done = self.stack(program).up(color="never", **more)
        return dict(done.summary.resource_changes or {})

    def refresh_changes(self) -> dict[str, Any]:
        """What a refresh changes in the recorded state: (resource, part) -> (before, after)."""
        before = self.recorded()
        self.refresh()
        after = self.recorded()
        return {
            f"{name} {part}.{key}": (before[name][part].get(key), after.get(name, {}).get(part, {}).get(key))
            for name in before
            for part in ("inputs", "outputs")
            for key in {*before[name][part], *after.get(name, {}).get(part, {})}
            if before[name][part].get(key) != after.get(name, {}).get(part, {}).get(key)
        }

    def recorded(self) -> dict[str, Any]:
        deployment = self.stack().export_stack().deployment or {}
        return {
            item["urn"].split("::", 2)[2]: {"inputs": item.get("inputs", {}), "outputs": item.get("outputs", {})}
            for item in deployment.get("resources", [])
        }

    def refresh(self) -> dict[str, int]:
        return dict(self.stack().refresh(color="never").summary.resource_changes or {})

    def destroy(self) -> None:
        self.stack().destroy(color="never")


@pytest.fixture
def run(account: Account, request: pytest.FixtureRequest) -> Iterator[Runner]:
    folder = Path(tempfile.mkdtemp(prefix="fedspan-programs-"))
    for name in ("state", "work", "home"):
        (folder / name).mkdir()
    given = request.config.getoption("--pulumi-root", default=None)
    root = Path(given) if given else engine.root(folder / "engine")
    try:
        with serving(AwsProvider(account.cloud.server.url)) as address:
            yield Runner(account, folder, root, address.rsplit(":", 1)[1])
    finally:
        shutil.rmtree(folder)


def network(opts: pulumi.ResourceOptions) -> tuple[ec2.Vpc, ec2.Subnet, list[pulumi.Resource]]:
    net = ec2.Vpc("net", cidr_block="10.3.0.0/16", enable_dns_hostnames=True, tags={"Name": "net"}, opts=opts)
    gateway = ec2.InternetGateway("gateway", vpc_id=net.id, opts=opts)
    subnet = ec2.Subnet("subnet", vpc_id=net.id, cidr_block="10.3.0.0/24", availability_zone=f"{REGION}a", opts=opts)
    table = ec2.RouteTable("table", vpc_id=net.id, opts=opts)
    route = ec2.Route(
        "route", route_table_id=table.id, destination_cidr_block="0.0.0.0/0", gateway_id=gateway.id, opts=opts
    )
    joined = ec2.RouteTableAssociation("joined", route_table_id=table.id, subnet_id=subnet.id, opts=opts)
    return net, subnet, [gateway, route, joined]


def site(key: str, *, size: str = "m7i.large", data: str = "#cloud-config\n") -> Program:
    """A machine with an interface, an address and a volume of its own."""

    def program(provider: aws.Provider) -> None:
        opts = pulumi.ResourceOptions(provider=provider)
        net, subnet, open_ = network(opts)
        group = ec2.SecurityGroup("group", vpc_id=net.id, description="site", opts=opts)
        vpc.SecurityGroupIngressRule(
            "ssh",
            security_group_id=group.id,
            ip_protocol="tcp",
            from_port=22,
            to_port=22,
            cidr_ipv4="198.51.100.4/32",
            opts=opts,
        )
        eni = ec2.NetworkInterface("eni", subnet_id=subnet.id, security_groups=[group.id], opts=opts)
        late = pulumi.ResourceOptions(provider=provider, depends_on=open_)
        address = ec2.Eip("address", domain="vpc", network_interface=eni.id, opts=late)
        pair = ec2.KeyPair("key", public_key=key, opts=opts)
        image = ssm.get_parameter_output(name=UBUNTU, opts=pulumi.InvokeOptions(provider=provider))
        machine = ec2.Instance(
            "machine",
            ami=pulumi.Output.unsecret(image.value),
            instance_type=size,
            key_name=pair.key_name,
            primary_network_interface=ec2.InstancePrimaryNetworkInterfaceArgs(network_interface_id=eni.id),
            user_data=pulumi.Output.secret(data),
            user_data_replace_on_change=True,
            root_block_device=ec2.InstanceRootBlockDeviceArgs(encrypted=True, volume_size=16, volume_type="gp3"),
            metadata_options=ec2.InstanceMetadataOptionsArgs(http_tokens="required"),
            opts=pulumi.ResourceOptions(provider=provider, depends_on=[address], delete_before_replace=True),
        )
        state = ebs.Volume("state", availability_zone=subnet.availability_zone, size=8, opts=opts)
        ec2.VolumeAttachment(
            "attachment", device_name="/dev/sdf", instance_id=machine.id, volume_id=state.id, opts=opts
        )
        pulumi.export("address", address.public_ip)

    return program


def test_a_site_comes_up_changes_and_goes(run: Runner) -> None:
    key = public_key()
    assert run.up(site(key))["create"] == 16
    checkpoints = [path.read_text() for path in (run.folder / "state").rglob("*.json")]
    assert any("aws:ec2/instance:Instance" in text for text in checkpoints)
    assert not any("cloud-config" in text for text in checkpoints)  # user data is a secret
    first = run.account.machines()[0]
    assert run.up(site(key)) == {"same": 16}
    assert run.refresh() == {"same": 16}
    assert run.up(site(key, size="m7i.xlarge")) == {"same": 15, "update": 1}
    second = run.account.machines()[0]
    assert (second.id, second.size, second.public_ip) == (first.id, "m7i.xlarge", first.public_ip)
    changed = run.up(site(key, size="m7i.xlarge", data="#cloud-config\n# 2\n"))
    assert changed["same"] == 14  # machine and attachment are replaced, nothing else is touched
    third = run.account.machines()[0]
    assert third.id != first.id
    assert (third.public_ip, third.volumes, third.user_data) == (
        first.public_ip,
        first.volumes,
        "#cloud-config\n# 2\n",
    )
    run.destroy()
    assert run.account.inventory() == []


# -- programs made by chance -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Shape:
    """What a random program contains; each number is a seed of the thing's changeable properties."""

    networks: tuple[int, ...]
    groups: tuple[tuple[int, int], ...]  # (network, seed)
    rules: tuple[tuple[int, int], ...]  # (group, seed)
    machines: tuple[tuple[int, int], ...]  # (network, seed)
    volumes: tuple[tuple[int, int], ...]  # (machine, seed)


def draw(chance: random.Random) -> Shape:
    networks = tuple(chance.randrange(4) for _ in range(chance.randint(1, 3)))
    groups = tuple((chance.randrange(len(networks)), chance.randrange(6)) for _ in range(chance.randint(1, 4)))
    machines = tuple((chance.randrange(len(networks)), chance.randrange(8)) for _ in range(chance.randint(0, 3)))
    rules = tuple((chance.randrange(len(groups)), chance.randrange(12)) for _ in range(chance.randint(0, 6)))
    volumes = tuple((chance.randrange(len(machines)), chance.randrange(4)) for _ in machines)
    return Shape(networks, groups, rules, machines, volumes)


def program_of(shape: Shape, key: str) -> Program:
    def program(provider: aws.Provider) -> None:
        opts = pulumi.ResourceOptions(provider=provider)
        image = ssm.get_parameter_output(name=UBUNTU, opts=pulumi.InvokeOptions(provider=provider)).value
        pair = ec2.KeyPair("key", public_key=key, opts=opts)
        subnets, nets, bases, open_ = [], [], [], []
        for number, seed in enumerate(shape.networks):
            net = ec2.Vpc(
                f"net-{number}",
                cidr_block=f"10.{number}.0.0/16",
                enable_dns_hostnames=bool(seed & 1),
                tags={"seed": str(seed)} if seed & 2 else None,
                opts=opts,
            )
            gateway = ec2.InternetGateway(f"gateway-{number}", vpc_id=net.id, opts=opts)
            subnet = ec2.Subnet(
                f"subnet-{number}",
                vpc_id=net.id,
                cidr_block=f"10.{number}.{seed >> 1}.0/24",
                availability_zone=f"{REGION}a",
                opts=opts,
            )
            nets.append(net)
            subnets.append(subnet)
            bases.append(ec2.SecurityGroup(f"base-{number}", vpc_id=net.id, description="base", opts=opts))
            open_.append(gateway)
        groups = [
            ec2.SecurityGroup(
                f"group-{number}",
                vpc_id=nets[at].id,
                description=f"group {seed >> 1}",
                revoke_rules_on_delete=bool(seed & 1),
                opts=opts,
            )
            for number, (at, seed) in enumerate(shape.groups)
        ]
        for number, (at, seed) in enumerate(shape.rules):
            kind = vpc.SecurityGroupEgressRule if seed & 1 else vpc.SecurityGroupIngressRule
            kind(
                f"rule-{number}",
                security_group_id=groups[at].id,
                ip_protocol="tcp" if seed & 2 else "-1",
                from_port=1000 + number if seed & 2 else None,
                to_port=1000 + number + seed if seed & 2 else None,
                cidr_ipv4=f"192.0.2.{number * 16 + seed}/32",
                description="a rule" if seed & 4 else None,
                opts=opts,
            )
        machines = []
        for number, (at, seed) in enumerate(shape.machines):
            worn = [group.id for group, (net_number, _) in zip(groups, shape.groups, strict=True) if net_number == at]
            eni = ec2.NetworkInterface(
                f"eni-{number}",
                subnet_id=subnets[at].id,
                security_groups=[bases[at].id, *worn],
                opts=pulumi.ResourceOptions(provider=provider, delete_before_replace=True),
            )
            late = pulumi.ResourceOptions(provider=provider, depends_on=[open_[at]])
            ec2.Eip(f"address-{number}", domain="vpc", network_interface=eni.id, opts=late)
            machines.append(
                ec2.Instance(
                    f"machine-{number}",
                    ami=pulumi.Output.unsecret(image),
                    instance_type="m7i.xlarge" if seed & 1 else "m7i.large",
                    key_name=pair.key_name if seed & 2 else None,
                    user_data=f"#cloud-config\n# {seed >> 2}\n",
                    primary_network_interface=ec2.InstancePrimaryNetworkInterfaceArgs(network_interface_id=eni.id),
                    tags={"seed": str(seed)},
                    opts=pulumi.ResourceOptions(provider=provider, delete_before_replace=True),
                )
            )
        for number, (at, seed) in enumerate(shape.volumes):
            volume = ebs.Volume(
                f"volume-{number}", availability_zone=f"{REGION}a", size=8 + number, encrypted=bool(seed & 1), opts=opts
            )
            ec2.VolumeAttachment(
                f"attachment-{number}",
                device_name=f"/dev/sd{'fghijk'[number]}",
                instance_id=machines[at].id,
                volume_id=volume.id,
                opts=pulumi.ResourceOptions(provider=provider, delete_before_replace=True),
            )

    return program


def check_random(run: Runner, seed: int) -> None:
    chance, key = random.Random(seed), public_key()
    for shape in (draw(chance), draw(chance)):
        program = program_of(shape, key)
        run.up(program)
        made = run.account.inventory()
        assert sum(item.kind == "ec2:instance" for item in made) == len(shape.machines), shape
        assert sum(item.kind == "ec2:security-group" for item in made) == len(shape.groups) + len(shape.networks), shape
        assert run.refresh_changes() == {}, shape
        assert set(run.up(program)) == {"same"}, shape
        assert run.account.inventory() == made, shape
    run.destroy()
    assert run.account.inventory() == [], shape
    assert run.account.machines() == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3])
def test_a_random_program_and_its_change_leave_nothing(run: Runner, seed: int) -> None:
    check_random(run, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 106))
def test_many_random_programs_leave_nothing(run: Runner, seed: int) -> None:
    check_random(run, seed)
