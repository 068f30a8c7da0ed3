"""What must hold of every participant's resources, whatever its arguments: read from the registered graph."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from stack_graph import Graph, Registered, run
from stack_samples import CLOUDS, PRIVATE_BODY, sample

from stacks.args import Gpu, ParticipantArgs
from stacks.names import tag_key
from stacks.resources import describe

SITUATIONS = {
    "aws server": ("aws", {"role": "server"}),
    "aws site": ("aws", {}),
    "aws site with GPUs": ("aws", {"size": "g4dn.xlarge", "gpus": Gpu(1, 16)}),
    "aws spot site in a zone": ("aws", {"spot": True, "zone": "eu-central-1b"}),
    "aws server on other ports": ("aws", {"role": "server", "ssh_port": 2222, "runtime_port": 9443}),
    "azure server": ("azure", {"role": "server"}),
    "azure site": ("azure", {}),
    "azure site with GPUs": ("azure", {"size": "Standard_NC4as_T4_v3", "gpus": Gpu(1, 16)}),
    "azure site with an A10": ("azure", {"size": "Standard_NV36ads_A10_v5", "gpus": Gpu(1, 24)}),
    "azure spot site in a zone": ("azure", {"spot": True, "zone": "2"}),
    "azure site where no zones are": ("azure", {"region": "westus"}),
    "azure server on other ports": ("azure", {"role": "server", "ssh_port": 2222, "runtime_port": 9443}),
}

# Kinds that have no tags in their cloud's API.
UNTAGGABLE = {
    "aws:ec2/route:Route",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws:ec2/volumeAttachment:VolumeAttachment",
    "azure-native:network:Subnet",
    "azure-native:network:SecurityRule",
}


def check_everything(cloud: str, args: ParticipantArgs) -> None:
    graph = run(cloud, args)
    everything_is_tagged(cloud, args, graph)
    ports_are_least_open(cloud, args, graph)
    disks_are_encrypted(cloud, graph)
    nothing_secret_is_plain(graph)
    all_go_through_the_one_provider(cloud, args, graph)
    (aws_machine if cloud == "aws" else azure_machine)(args, graph)
    planned = {(p.type, p.name) for p in describe(cloud, args)}  # type: ignore[arg-type]
    assert planned == {(r.type, r.name) for r in graph.cloud}
    assert set(graph.outputs) == {
        "public_ip", "private_ip", "vm_id", "region", "size", "ssh_user", "host_key_fingerprint", "image"
    }  # fmt: skip
    assert graph.outputs["host_key_fingerprint"].startswith("SHA256:")


def everything_is_tagged(cloud: str, args: ParticipantArgs, graph: Graph) -> None:
    for resource in graph.cloud:
        if resource.type in UNTAGGABLE:
            continue
        tags = resource.inputs["tags"]
        for name, value in {
            "federation": args.federation,
            "deployment": args.deployment,
            "participant": args.participant,
            "owner": args.owner,
            "logical-name": resource.name,
        }.items():
            assert tags[tag_key(cloud, name)] == value, (resource.name, name)  # type: ignore[arg-type]
        assert dict(args.tags).items() <= tags.items()
    if cloud == "aws":
        assert (
            graph[f"{args.participant}-vm"].inputs["rootBlockDevice"]["tags"]["fedspan:participant"] == args.participant
        )


def open_ports(cloud: str, graph: Graph) -> list[tuple[int, str]]:
    if cloud == "aws":
        rules = graph.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
        for rule in rules:
            assert rule.inputs["fromPort"] == rule.inputs["toPort"]
            assert rule.inputs["ipProtocol"] == "tcp"
        assert all("ingress" not in g.inputs for g in graph.of_type("aws:ec2/securityGroup:SecurityGroup"))
        return sorted((r.inputs["fromPort"], r.inputs["cidrIpv4"]) for r in rules)
    rules = graph.of_type("azure-native:network:SecurityRule")
    priorities = [r.inputs["priority"] for r in rules]
    assert len(set(priorities)) == len(priorities)
    assert all(100 <= p <= 4096 for p in priorities)
    # Azure's own rules would let in every port from the virtual network and all that is connected to it.
    (last,) = (rule for rule in rules if rule.inputs["access"] == "Deny")
    rules.remove(last)
    everything = ("Inbound", max(priorities), "*", "*", "*")
    kinds = ("direction", "priority", "protocol", "sourceAddressPrefix", "destinationPortRange")
    assert tuple(last.inputs[kind] for kind in kinds) == everything
    for rule in rules:
        assert (rule.inputs["direction"], rule.inputs["access"], rule.inputs["protocol"]) == ("Inbound", "Allow", "Tcp")
    assert all("securityRules" not in g.inputs for g in graph.of_type("azure-native:network:NetworkSecurityGroup"))
    return sorted((int(r.inputs["destinationPortRange"]), r.inputs["sourceAddressPrefix"]) for r in rules)


def ports_are_least_open(cloud: str, args: ParticipantArgs, graph: Graph) -> None:
    """SSH from the SSH networks, the runtime's port from its networks on a server, nothing else, one rule for each."""
    wanted = [(args.ssh_port, cidr) for cidr in args.ssh_ingress]
    if args.role == "server":
        wanted += [(args.runtime_port or 0, cidr) for cidr in args.runtime_ingress]
    assert open_ports(cloud, graph) == sorted(wanted)
    assert all(ipaddress.ip_network(cidr).prefixlen >= 8 for _, cidr in open_ports(cloud, graph))


def disks_are_encrypted(cloud: str, graph: Graph) -> None:
    if cloud == "aws":
        (volume,) = graph.of_type("aws:ebs/volume:Volume")
        (vm,) = graph.of_type("aws:ec2/instance:Instance")
        root = vm.inputs["rootBlockDevice"]
        assert volume.inputs["encrypted"] is True
        assert (root["encrypted"], root["volumeType"], root["deleteOnTermination"]) == (True, "gp3", True)
        return
    (disk,) = graph.of_type("azure-native:compute:Disk")
    assert disk.inputs["encryption"] == {"type": "EncryptionAtRestWithPlatformKey"}
    assert disk.inputs["networkAccessPolicy"] == "DenyAll"


def nothing_secret_is_plain(graph: Graph) -> None:
    """The private host key is nowhere but in user-data, and user-data is a secret."""
    for resource in graph.resources:
        for path, text in _texts(resource.inputs):
            if PRIVATE_BODY in text:
                assert path == "userData"
        wanted = {
            "aws:ec2/instance:Instance": {"userData"},
            "azure-native:compute:VirtualMachine": {"osProfile.customData"},
        }.get(resource.type, set())
        assert resource.secret == wanted, resource.name
    assert PRIVATE_BODY not in str(graph.outputs)


def all_go_through_the_one_provider(cloud: str, args: ParticipantArgs, graph: Graph) -> None:
    for resource in graph.cloud:
        assert f"::{args.participant}-{cloud}::" in resource.request.provider, resource.name
        assert resource.parent == args.participant
        assert not resource.request.protect
        assert not resource.request.retainOnDelete
        assert not any(alias.urn or alias.spec.name for alias in resource.request.aliases)


def aws_machine(args: ParticipantArgs, graph: Graph) -> None:
    p = args.participant
    vm = graph[f"{p}-vm"]
    assert vm.inputs["metadataOptions"] == {
        "httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1
    }  # fmt: skip
    assert vm.inputs["primaryNetworkInterface"] == {"networkInterfaceId": f"id-of-{p}-interface"}
    # EC2 excludes these beside an interface of one's own.
    assert not {"subnetId", "vpcSecurityGroupIds", "associatePublicIpAddress", "networkInterfaces"} & set(vm.inputs)
    assert {f"{p}-address", f"{p}-default-route", f"{p}-subnet-routes", f"{p}-egress", f"{p}-state"} <= vm.depends_on
    assert vm.request.deleteBeforeReplace
    assert list(vm.request.ignoreChanges) == ["ami"]
    assert vm.inputs["userDataReplaceOnChange"] is True
    assert f"{p}-gateway" in graph[f"{p}-address"].depends_on
    assert graph[f"{p}-address"].inputs["networkInterface"] == f"id-of-{p}-interface"
    spot = vm.inputs.get("instanceMarketOptions", {}).get("marketType")
    assert spot == ("spot" if args.spot else None)
    assert vm.inputs["instanceInitiatedShutdownBehavior"] == ("terminate" if args.spot else "stop")
    attachment = graph[f"{p}-state-attachment"]
    assert attachment.inputs["stopInstanceBeforeDetaching"] is not args.spot
    assert attachment.inputs.get("skipDestroy", False) is args.spot
    assert attachment.request.deleteBeforeReplace
    assert graph[f"{p}-state"].inputs["availabilityZone"] == (args.zone or "eu-central-1c")
    gpu = bool(args.gpus)
    (_, call), *rest = graph.calls
    assert not rest
    assert ("deeplearning" in call["name"]) == gpu
    assert ("canonical/ubuntu" in call["name"]) != gpu
    assert vm.inputs["ami"].startswith("ami-")
    assert vm.inputs["rootBlockDevice"]["volumeSize"] >= (100 if gpu else args.os_disk_gib)
    tables = graph.of_type("aws:ec2/routeTable:RouteTable")
    assert all("routes" not in t.inputs for t in tables)


def azure_machine(args: ParticipantArgs, graph: Graph) -> None:
    p = args.participant
    vm = graph[f"{p}-vm"]
    os_profile, storage = vm.inputs["osProfile"], vm.inputs["storageProfile"]
    assert os_profile["linuxConfiguration"]["disablePasswordAuthentication"] is True
    assert "adminPassword" not in os_profile
    # What is deleted with the machine: its OS disk and nothing else.
    assert [path for path, text in _texts(vm.inputs) if text == "Delete"] == ["storageProfile.osDisk.deleteOption"]
    assert storage["dataDisks"][0]["createOption"] == "Attach"
    assert vm.inputs["diagnosticsProfile"] == {"bootDiagnostics": {"enabled": True}}
    # Microsoft's HPC image (NC sizes) is not known to take Trusted Launch; everything else has it.
    security = vm.inputs.get("securityProfile", {})
    assert (security.get("securityType") == "TrustedLaunch") is ("_NC" not in args.size)
    # An unsigned NVIDIA driver does not load under secure boot.
    assert bool(security.get("uefiSettings", {}).get("secureBootEnabled")) is (args.gpus is None)
    assert list(vm.request.ignoreChanges) == ["storageProfile.imageReference"]
    assert "osProfile" in vm.request.replaceOnChanges
    assert bool(graph.of_type("azure-native:compute:VirtualMachineExtension")) == ("NV" in args.size)
    address = graph[f"{p}-address"].inputs
    assert (address["sku"], address["publicIPAllocationMethod"]) == ({"name": "Standard"}, "Static")
    assert address.get("zones") == (None if args.region == "westus" else ["1", "2", "3"])
    zones = [args.zone] if args.zone else None
    assert vm.inputs.get("zones") == zones
    assert graph[f"{p}-state"].inputs.get("zones") == zones
    assert graph[f"{p}-subnet"].inputs["defaultOutboundAccess"] is False
    assert "subnets" not in graph[f"{p}-vnet"].inputs
    assert graph[f"{p}-interface"].inputs["networkSecurityGroup"] == {"id": f"id-of-{p}-firewall"}
    assert vm.inputs.get("priority") == ("Spot" if args.spot else None)
    for resource in graph.cloud:
        assert resource.request.deleteBeforeReplace, resource.name
        if not resource.type.endswith(":ResourceGroup"):
            assert resource.request.deletedWith.endswith(f"::{p}-rg"), resource.name
        names = [v for k, v in resource.inputs.items() if k.lower().endswith("name") and k != "resourceGroupName"]
        assert names or resource.type.endswith(":ResourceGroup"), f"{resource.name} has no fixed name"
        assert all(len(name) <= 64 for name in names)


def _texts(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [found for k, v in value.items() for found in _texts(v, f"{path}.{k}" if path else k)]
    if isinstance(value, list):
        return [found for v in value for found in _texts(v, path)]
    return [(path, value)] if isinstance(value, str) else []


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_invariant_holds(situation: str) -> None:
    cloud, more = SITUATIONS[situation]
    check_everything(cloud, sample(cloud, **more))


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,30}[a-z0-9]", fullmatch=True)
NETWORKS = st.builds(
    lambda address, length: str(ipaddress.ip_network((address, length), strict=False)),
    st.integers(0, 2**32 - 1),
    st.integers(8, 32),
)
TAGS = st.dictionaries(
    st.from_regex(r"cost-[a-z]{1,8}", fullmatch=True), st.from_regex(r"[a-z0-9@.]{0,20}", fullmatch=True), max_size=3
)


# Each example runs two programs; a shrink of a failure would take minutes and tell little more.
QUICK = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    derandomize=True,
)


@st.composite
def participants(draw: st.DrawFn) -> tuple[str, ParticipantArgs]:
    cloud, role = draw(st.sampled_from(CLOUDS)), draw(st.sampled_from(["server", "site"]))
    ports = draw(st.lists(st.integers(1, 65535), min_size=2, max_size=2, unique=True))
    more: dict[str, Any] = {
        "federation": draw(NAMES),
        "participant": draw(NAMES),
        "ssh_port": ports[0],
        "ssh_ingress": tuple(draw(st.lists(NETWORKS, min_size=1, max_size=20, unique=True))),
        "tags": draw(TAGS),
        "spot": role == "site" and draw(st.booleans()),
        "state_disk_gib": draw(st.integers(1, 4096)),
    }
    if role == "server":
        more |= {
            "runtime_port": ports[1],
            "runtime_ingress": tuple(draw(st.lists(NETWORKS, max_size=40, unique=True))),
        }
    return cloud, sample(cloud, role, **more)


@settings(QUICK, max_examples=8)
@given(participants())
def test_every_invariant_holds_for_any_arguments(participant: tuple[str, ParticipantArgs]) -> None:
    check_everything(*participant)


@settings(QUICK, max_examples=4)
@given(participants())
def test_the_address_stage_is_a_part_of_the_whole_with_the_same_inputs_and_options(
    participant: tuple[str, ParticipantArgs],
) -> None:
    cloud, args = participant
    address, full = run(cloud, args, "address"), run(cloud, args, "full")
    assert {r.name for r in address.cloud} < {r.name for r in full.cloud}
    for part in address.resources:
        assert _comparable(part) == _comparable(full[part.name])
    assert address.outputs == {k: full.outputs[k] for k in ("public_ip", "region")}
    assert not address.calls
    assert (
        [(p.type, p.name) for p in describe(cloud, args, "address")]
        == [  # type: ignore[arg-type]
            (p.type, p.name)
            for p in describe(cloud, args)[: len(address.cloud)]  # type: ignore[arg-type]
        ]
    )


def _comparable(resource: Registered) -> Any:
    request = type(resource.request)()
    request.CopyFrom(resource.request)
    request.ClearField("sourcePosition")
    request.ClearField("stackTrace")
    request.ClearField("packageRef")
    request.ClearField("provider")
    return request
