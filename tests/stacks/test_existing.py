"""What a stack uses of the account's own is neither made nor changed; what it may reach, and who may reach it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from stack_graph import VM_ID, Graph, run
from stack_samples import sample

from stacks.args import Gpu
from stacks.cloud_checks import check_for
from stacks.errors import StackArgumentError
from stacks.existing import Existing
from stacks.names import assignment_name
from stacks.resources import describe

AWS: dict[str, Any] = {"vpc": "vpc-0123456789abcdef0", "subnet": "subnet-0123456789abcdef0"}
AWS_GROUP = "sg-0123456789abcdef0"
PLACE = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/network/providers"
AZURE: dict[str, Any] = {"subnet": f"{PLACE}/Microsoft.Network/virtualNetworks/hospital/subnets/research"}
AZURE_GROUP = f"{PLACE}/Microsoft.Network/networkSecurityGroups/research"
OWN_NETWORK = {"Vpc", "InternetGateway", "Subnet", "RouteTable", "Route", "RouteTableAssociation", "VirtualNetwork"}
PLACES = [("aws", AWS, {"zone": "eu-central-1a"}), ("azure", AZURE, {})]


def kinds(graph: Graph) -> set[str]:
    return {resource.type.rpartition(":")[2] for resource in graph.cloud}


def made(cloud: str, existing: Existing, **more: Any) -> Graph:
    """The graph, which holds exactly what a plan would show."""
    args = sample(cloud, existing=existing, **more)
    graph = run(cloud, args)
    planned = {(p.type, p.name) for p in describe(cloud, args)}  # type: ignore[arg-type]
    assert planned == {(r.type, r.name) for r in graph.cloud}
    return graph


@pytest.mark.parametrize(("cloud", "own", "more"), PLACES)
def test_in_a_subnet_of_the_account_no_network_is_made(cloud: str, own: dict[str, Any], more: dict[str, Any]) -> None:
    graph = made(cloud, Existing(**own), **more)
    assert kinds(graph) & OWN_NETWORK == set()
    interface = graph["site-1-interface"].inputs
    assert own["subnet"] in (interface.get("subnetId"), _azure_subnet(interface))
    assert "site-1-address" in {resource.name for resource in graph.cloud}


def _azure_subnet(interface: dict[str, Any]) -> Any:
    return interface["ipConfigurations"][0]["subnet"]["id"] if "ipConfigurations" in interface else None


def test_in_a_subnet_of_the_account_no_neighbour_gets_in_by_azures_own_rules() -> None:
    _, own, more = PLACES[1]
    graph = made("azure", Existing(**own), **more)
    deny = graph["site-1-ingress-deny"].inputs
    assert (deny["direction"], deny["access"], deny["priority"]) == ("Inbound", "Deny", 4096)
    assert (deny["sourceAddressPrefix"], deny["destinationPortRange"], deny["protocol"]) == ("*", "*", "*")


@pytest.mark.parametrize(("cloud", "own", "more"), PLACES)
def test_a_private_machine_has_no_public_address(cloud: str, own: dict[str, Any], more: dict[str, Any]) -> None:
    graph = made(cloud, Existing(**own, private=True), **more)
    assert kinds(graph) & {"Eip", "PublicIPAddress"} == set()
    assert graph.outputs["public_ip"] == graph.outputs["private_ip"]


@pytest.mark.parametrize(("cloud", "own", "more", "group"), [(*PLACES[0], AWS_GROUP), (*PLACES[1], AZURE_GROUP)])
def test_a_group_of_the_account_gets_no_rule(cloud: str, own: dict[str, Any], more: dict[str, Any], group: str) -> None:
    more = {**more, "ssh_access": "never", "ssh_ingress": ()}
    graph = made(cloud, Existing(**own, security_group=group), **more)
    rules = {"SecurityGroup", "SecurityGroupIngressRule", "SecurityGroupEgressRule", "NetworkSecurityGroup"}
    assert kinds(graph) & (rules | {"SecurityRule"}) == set()
    assert group in str(graph["site-1-interface"].inputs)


def test_own_image_and_key_are_taken() -> None:
    key = "arn:aws:kms:eu-central-1:111111111111:key/0a1b"
    graph = made("aws", Existing(image="ami-0123456789abcdef0", kms_key=key))
    machine = graph["site-1-vm"].inputs
    assert (machine["ami"], machine["rootBlockDevice"]["kmsKeyId"]) == ("ami-0123456789abcdef0", key)
    assert graph["site-1-state"].inputs["kmsKeyId"] == key
    assert [call for call in graph.calls if "getParameter" in call[0]] == []
    keys = f"{PLACE}/Microsoft.Compute/diskEncryptionSets/ours"
    image = f"{PLACE}/Microsoft.Compute/galleries/g/images/ubuntu/versions/1.0.0"
    graph = made("azure", Existing(image=image, kms_key=keys))
    storage = graph["site-1-vm"].inputs["storageProfile"]
    assert storage["imageReference"] == {"id": image}
    assert storage["osDisk"]["managedDisk"]["diskEncryptionSet"]["id"] == keys
    assert graph["site-1-state"].inputs["encryption"]["diskEncryptionSetId"] == keys


@pytest.mark.parametrize(
    ("image", "trusted"),
    [("galleries/g/images/ubuntu/versions/1.0.0", True), ("images/ubuntu", False), ("IMAGES/ubuntu", False)],
)
def test_trusted_launch_is_not_asked_for_where_a_managed_image_is_booted(image: str, trusted: bool) -> None:
    machine = made("azure", Existing(image=f"{PLACE}/Microsoft.Compute/{image}"))["site-1-vm"].inputs
    assert (machine.get("securityProfile", {}).get("securityType") == "TrustedLaunch") is trusted


@pytest.mark.parametrize("size", ["Standard_NC4as_T4_v3", "Standard_ND96isr_H100_v5", "Standard_NV36ads_A10_v5"])
def test_an_image_of_ones_own_is_taken_as_it_is_with_gpus_too(size: str) -> None:
    image = f"{PLACE}/Microsoft.Compute/galleries/g/images/ubuntu/versions/1.0.0"
    graph = made("azure", Existing(image=image), size=size, gpus=Gpu(1), os_disk_gib=40)
    assert "VirtualMachineExtension" not in kinds(graph)  # nobody installs a driver into it
    machine = graph["site-1-vm"].inputs
    assert machine["securityProfile"]["securityType"] == "TrustedLaunch"
    assert machine["securityProfile"]["uefiSettings"] == {"secureBootEnabled": False, "vTpmEnabled": True}
    assert (machine["storageProfile"]["osDisk"]["diskSizeGB"], graph.outputs["image"]) == (40, image)
    stands = made("azure", Existing(image=image), size=size, gpus=Gpu(1), trusted_launch=False)
    assert "securityProfile" not in stands["site-1-vm"].inputs


@pytest.mark.parametrize(
    ("cloud", "place", "images"),
    [
        ("aws", "ami", ("ami-0123456789abcdef0", "ami-0123456789abcdef1")),
        ("azure", "storageProfile.imageReference", (f"{PLACE}/Microsoft.Compute/images/{one}" for one in "ab")),
    ],
)
def test_another_image_of_ones_own_is_another_machine(cloud: str, place: str, images: Iterable[str]) -> None:
    before, after = (made(cloud, Existing(image=image), reimage=True) for image in images)
    changed = [r.name for r in before.cloud if after[r.name].inputs != r.inputs]
    assert changed == ["site-1-vm"]
    assert before.outputs["image"] != after.outputs["image"]
    request = after["site-1-vm"].request
    assert list(request.ignoreChanges) == []
    assert cloud == "aws" or place in request.replaceOnChanges
    assert list(made(cloud, Existing(image=after.outputs["image"]))["site-1-vm"].request.ignoreChanges) == [place]


def test_encryption_at_host_is_said_and_a_machine_that_gets_it_is_replaced() -> None:
    plain, encrypted = (made("azure", Existing(), encryption_at_host=wanted) for wanted in (False, True))
    assert "encryptionAtHost" not in plain["site-1-vm"].inputs["securityProfile"]
    assert encrypted["site-1-vm"].inputs["securityProfile"]["encryptionAtHost"] is True
    assert "securityProfile.encryptionAtHost" in encrypted["site-1-vm"].request.replaceOnChanges


@pytest.mark.parametrize(
    ("cloud", "existing", "more", "where"),
    [
        ("aws", Existing(subnet=AWS["subnet"]), {}, "network.vpc"),
        ("aws", Existing(**AWS), {}, "zone"),
        ("aws", Existing(private=True), {}, "network.private"),
        ("aws", Existing(image="ubuntu"), {}, "image"),
        ("aws", Existing(image=f"{PLACE}/Microsoft.Compute/images/x"), {}, "image"),
        ("aws", Existing(kms_key="0a1b2c3d-0000-4000-8000-00000000000a"), {}, "kms_key"),
        ("azure", Existing(subnet="subnet-0123456789abcdef0"), {}, "subnet"),
        ("azure", Existing(vpc=AWS["vpc"]), {}, "network.vpc"),
        ("azure", Existing(kms_key="arn:aws:kms:eu-central-1:111111111111:key/0a1b"), {}, "kms_key"),
    ],
)
def test_what_the_cloud_could_not_use_is_refused_by_its_field(
    cloud: Any, existing: Existing, more: dict[str, Any], where: str
) -> None:
    with pytest.raises(StackArgumentError) as caught:
        check_for(cloud, sample(cloud, existing=existing, **more))
    assert str(caught.value).startswith((f"site-1: {where}", where))


@pytest.mark.parametrize("alias", ["alias/disks", "arn:aws:kms:eu-central-1:111111111111:alias/team/disks"])
def test_an_alias_of_a_key_is_refused_with_the_command_that_prints_the_keys_own_arn(alias: str) -> None:
    name = alias[alias.index("alias/") :]
    with pytest.raises(StackArgumentError, match="is an alias") as caught:
        check_for("aws", sample("aws", existing=Existing(kms_key=alias)))
    assert f"aws kms describe-key --key-id {name} --query KeyMetadata.Arn" in str(caught.value.next_step)


def test_ssh_never_needs_a_group_whose_rules_let_somebody_in() -> None:
    with pytest.raises(StackArgumentError, match="nobody could install"):
        sample("aws", ssh_access="never", ssh_ingress=())
    with pytest.raises(StackArgumentError, match="this group is not ours"):
        sample(
            "aws",
            existing=Existing(**AWS, security_group=AWS_GROUP),
            ssh_access="during-operations",
            ssh_ingress=(),
        )


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_during_operations_the_stack_itself_opens_no_ssh(cloud: str) -> None:
    graph = made(cloud, Existing(), ssh_access="during-operations", ssh_ingress=())
    inbound = [
        resource
        for resource in graph.cloud
        if resource.type.endswith("SecurityGroupIngressRule")
        or (resource.inputs.get("direction"), resource.inputs.get("access")) == ("Inbound", "Allow")
    ]
    assert inbound == []


def outwards(graph: Graph) -> set[tuple[str, str, str]]:
    """(protocol, network, port) of everything that is let out."""
    found = set()
    for resource in graph.cloud:
        values = resource.inputs
        if resource.type.endswith("SecurityGroupEgressRule"):
            found.add((values["ipProtocol"], values["cidrIpv4"], str(values.get("fromPort", ""))))
        elif values.get("direction") == "Outbound" and values["access"] == "Allow":
            found.add((values["protocol"].lower(), values["destinationAddressPrefix"], values["destinationPortRange"]))
    return found


def test_restricted_a_site_reaches_server_dns_time_and_mirrors_only() -> None:
    wanted = {"egress_restricted": True, "server_cidr": "52.1.2.3/32", "server_port": 8002}
    aws = outwards(made("aws", Existing(), **wanted, mirrors=("203.0.113.0/24",)))
    assert aws == {
        ("tcp", "52.1.2.3/32", "8002"),
        ("udp", "10.42.0.2/32", "53"),
        ("tcp", "10.42.0.2/32", "53"),
        ("udp", "169.254.169.253/32", "53"),
        ("tcp", "169.254.169.253/32", "53"),
        ("udp", "169.254.169.123/32", "123"),
        ("tcp", "203.0.113.0/24", "80"),
        ("tcp", "203.0.113.0/24", "443"),
    }
    graph = made("azure", Existing(), **wanted)
    assert ("tcp", "52.1.2.3/32", "8002") in outwards(graph)
    deny = graph["site-1-egress-deny"].inputs
    assert (deny["access"], deny["priority"], deny["destinationAddressPrefix"]) == ("Deny", 4096, "*")
    priorities = [r.inputs["priority"] for r in graph.cloud if r.inputs.get("direction") == "Outbound"]
    assert len(set(priorities)) == len(priorities)


def test_a_server_that_moves_changes_one_rule_of_a_site_and_makes_no_other() -> None:
    names = []
    for address in ("52.1.2.3/32", "52.9.9.9/32"):
        more = {"egress_restricted": True, "server_cidr": address, "server_port": 8002}
        names.append({resource.name for resource in made("aws", Existing(), **more).cloud})
    assert names[0] == names[1]


def test_the_last_day_of_a_site_on_azure_has_azures_own_shutdown() -> None:
    graph = made("azure", Existing(), expires="2026-11-30T05:00:00Z", deallocate_at="0501")
    schedule = graph["site-1-shutdown"].inputs
    assert schedule["name"] == "shutdown-computevm-digits-site-1-vm"
    assert (schedule["dailyRecurrence"], schedule["timeZoneId"], schedule["status"]) == (
        {"time": "0501"},
        "UTC",
        "Enabled",
    )
    assert graph["site-1-vm"].inputs["tags"]["fedspan-expires-at"] == "2026-11-30T05:00:00Z"
    earlier = made("azure", Existing(), expires="2026-12-30T05:00:00Z")
    assert [resource for resource in earlier.cloud if "shutdown" in resource.name] == []
    assert (graph.outputs["deallocate_at"], "deallocate_at" in earlier.outputs) == ("0501", False)


def test_a_machine_that_deallocates_itself_may_do_that_to_itself_alone() -> None:
    graph = made("azure", Existing(), expires="2026-11-30T05:00:00Z", self_deallocate=True)
    machine, role = graph["site-1-vm"], graph["site-1-deallocate-role"]
    assert machine.inputs["identity"] == {"type": "SystemAssigned"}
    assert "identity" not in machine.request.replaceOnChanges
    assert role.inputs == {
        "scope": VM_ID,
        "principalId": "0000-its-own",
        "principalType": "ServicePrincipal",
        "roleAssignmentName": assignment_name(VM_ID.upper()),
        "roleDefinitionId": "/subscriptions/sub/providers/Microsoft.Authorization/roleDefinitions/"
        "40c5ff49-9181-41f8-ae61-143b0e78555e",
    }
    assert role.request.deleteBeforeReplace
    assert role.request.deletedWith == ""
    assert graph.outputs["self_deallocate"] is True
    plain, dropped = made("azure", Existing()), made("azure", Existing(), drop_identity=True)
    assert "identity" not in plain["site-1-vm"].inputs
    assert dropped["site-1-vm"].inputs["identity"] == {"type": "None"}
    for other in (plain, dropped):
        assert [one for one in other.cloud if "RoleAssignment" in one.type] == []
        assert "self_deallocate" not in other.outputs
    with pytest.raises(StackArgumentError, match="the server never ends by itself"):
        sample("azure", "server", self_deallocate=True)


def test_a_restricted_machine_that_deallocates_itself_reaches_azures_management() -> None:
    more = {"egress_restricted": True, "mirrors": ["203.0.113.0/24"]}
    assert ("tcp", "AzureResourceManager", "443") in outwards(made("azure", Existing(), self_deallocate=True, **more))
    assert all(to != "AzureResourceManager" for _, to, _ in outwards(made("azure", Existing(), **more)))


def test_only_a_site_with_an_end_is_terminated_by_its_own_power_off() -> None:
    ends = made("aws", Existing(), expires="2026-11-30T05:00:00Z")["site-1-vm"].inputs
    stays = made("aws", Existing())["site-1-vm"].inputs
    assert ends["instanceInitiatedShutdownBehavior"] == "terminate"
    assert stays["instanceInitiatedShutdownBehavior"] == "stop"
    with pytest.raises(StackArgumentError, match="the server never ends by itself"):
        sample("aws", "server", expires="2026-11-30T05:00:00Z")
