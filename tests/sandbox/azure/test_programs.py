"""Real pulumi_azure_native programs, run by the stand-in engine through the plugin, against the emulated Azure."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pulumi
import pulumi_azure_native as azure_native
import pytest
from pulumi import automation as auto
from pulumi_azure_native import authorization, compute, network, resources

from deployer.sandbox import engine
from deployer.sandbox.azure import AzureNativeProvider

from .arm_kit import PUBLIC_KEY, REGION, USER_DATA, Azure, serving
from .identity_kit import POWER_ON_OFF

PIECES = 10  # resources of the program below, the provider and the stack included


class Bench:
    """One stack with its own folder; each command gets a plugin of its own, as in the sandbox."""

    def __init__(self, folder: Path, azure: Azure, root: Path) -> None:
        self.folder, self.azure, self.root = folder, azure, root
        for name in ("state", "work"):
            (folder / name).mkdir()

    def run(self, verb: str, program: Callable[[], None], **options: Any) -> Any:
        backend = f"file://{self.folder / 'state'}"
        provider = AzureNativeProvider(self.azure.server.url, self.azure.server.ca_file, self.azure.environment)
        with serving(provider) as address:
            stack = auto.create_or_select_stack(
                "site-1",
                "p",
                program,
                opts=auto.LocalWorkspaceOptions(
                    work_dir=str(self.folder / "work"),
                    pulumi_home=str(self.folder / "home"),
                    pulumi_command=auto.PulumiCommand(root=str(self.root)),
                    project_settings=auto.ProjectSettings("p", "python", backend=auto.ProjectBackend(url=backend)),
                    env_vars={
                        **self.azure.environment,
                        "PULUMI_CONFIG_PASSPHRASE": "for tests",
                        "PULUMI_DEBUG_PROVIDERS": f"azure-native:{address.rsplit(':', 1)[1]}",
                        "PULUMI_BACKEND_URL": backend,
                    },
                ),
            )
            return getattr(stack, verb)(**options)

    def changes(self, verb: str, program: Callable[[], None], **options: Any) -> dict[str, int]:
        result = self.run(verb, program, **options)
        found = result.change_summary if verb == "preview" else result.summary.resource_changes
        return dict(found or {})


@pytest.fixture
def bench(azure: Azure, tmp_path: Path) -> Iterator[Bench]:
    return Bench(tmp_path, azure, engine.root())


def participant(azure: Azure, **change: Any) -> Callable[[], None]:
    """A machine with everything around it; `change` alters sizes, user-data, sources, tags, zones."""
    given = {"size": "Standard_D2s_v5", "user_data": USER_DATA, "source": "198.51.100.10/32", "tags": {}, **change}

    def program() -> None:
        provider = azure_native.Provider(
            "azure", subscription_id=azure.subscription, tenant_id=azure.environment["ARM_TENANT_ID"], location=REGION
        )
        options = pulumi.ResourceOptions(provider=provider)
        group = resources.ResourceGroup("rg", resource_group_name="rg", tags=given["tags"], opts=options)
        within: dict[str, Any] = {"resource_group_name": group.name, "opts": options}
        vnet = network.VirtualNetwork(
            "vnet", address_space=network.AddressSpaceArgs(address_prefixes=["10.0.0.0/16"]), **within
        )
        nsg = network.NetworkSecurityGroup("nsg", network_security_group_name="nsg", **within)
        network.SecurityRule(
            "ssh",
            network_security_group_name=nsg.name,
            priority=100,
            direction="Inbound",
            access="Allow",
            protocol="Tcp",
            source_address_prefix=given["source"],
            source_port_range="*",
            destination_address_prefix="*",
            destination_port_range="22",
            **within,
        )
        subnet = network.Subnet("subnet", virtual_network_name=vnet.name, address_prefix="10.0.0.0/24", **within)
        address = network.PublicIPAddress(
            "ip",
            public_ip_address_name="ip",
            sku=network.PublicIPAddressSkuArgs(name="Standard"),
            public_ip_allocation_method="Static",
            zones=["1", "2", "3"],
            **within,
        )
        nic = network.NetworkInterface(
            "nic",
            network_interface_name="nic",
            network_security_group=network.NetworkSecurityGroupArgs(id=nsg.id),
            ip_configurations=[
                network.NetworkInterfaceIPConfigurationArgs(
                    name="primary",
                    subnet=network.SubnetArgs(id=subnet.id),
                    public_ip_address=network.PublicIPAddressArgs(id=address.id),
                )
            ],
            **within,
        )
        vm = compute.VirtualMachine(
            "vm",
            vm_name="vm",
            resource_group_name=group.name,
            zones=given.get("zones"),
            hardware_profile=compute.HardwareProfileArgs(vm_size=given["size"]),
            network_profile=compute.NetworkProfileArgs(
                network_interfaces=[compute.NetworkInterfaceReferenceArgs(id=nic.id, primary=True)]
            ),
            os_profile=compute.OSProfileArgs(
                admin_username="fedspan",
                computer_name="site-1",
                custom_data=pulumi.Output.secret(base64.b64encode(given["user_data"].encode()).decode()),
                linux_configuration=compute.LinuxConfigurationArgs(
                    disable_password_authentication=True,
                    ssh=compute.SshConfigurationArgs(
                        public_keys=[
                            compute.SshPublicKeyArgs(key_data=PUBLIC_KEY, path="/home/fedspan/.ssh/authorized_keys")
                        ]
                    ),
                ),
            ),
            storage_profile=compute.StorageProfileArgs(
                image_reference=compute.ImageReferenceArgs(
                    publisher="Canonical", offer="ubuntu-24_04-lts", sku="server", version="latest"
                ),
                os_disk=compute.OSDiskArgs(name="os", create_option="FromImage", delete_option="Delete"),
            ),
            identity=compute.VirtualMachineIdentityArgs(type=given["identity"]) if given.get("identity") else None,
            # Fixed names: the provider asks for delete-first only where it wants the replacement itself.
            opts=pulumi.ResourceOptions(
                provider=provider, replace_on_changes=given.get("replace", []), delete_before_replace=True
            ),
        )
        if given.get("identity") == "SystemAssigned":
            roles = f"/subscriptions/{azure.subscription}/providers/Microsoft.Authorization/roleDefinitions"
            authorization.RoleAssignment(
                "role",
                role_assignment_name=str(uuid.uuid5(uuid.NAMESPACE_URL, azure.subscription)),
                scope=vm.id,
                role_definition_id=f"{roles}/{POWER_ON_OFF}",
                principal_id=vm.identity.apply(lambda own: own.principal_id if own else None),
                principal_type="ServicePrincipal",
                opts=pulumi.ResourceOptions(provider=provider, delete_before_replace=True),
            )
        pulumi.export("ip", address.ip_address)
        pulumi.export("vm", vm.id)
        pulumi.export("vnet", vnet.name)
        who = authorization.get_client_config(opts=pulumi.InvokeOptions(provider=provider))
        pulumi.export("subscription", who.subscription_id)

    return program


def machine(azure: Azure) -> Any:
    return next(m for m in azure.server.machines() if m.account == azure.subscription)


def test_a_participant_comes_up_stays_changes_and_goes(bench: Bench, azure: Azure) -> None:
    assert bench.changes("preview", participant(azure)) == {"create": PIECES}
    result = bench.run("up", participant(azure), show_secrets=False)
    outputs = {name: value.value for name, value in result.outputs.items()}
    assert outputs["ip"] == machine(azure).public_ip
    assert outputs["subscription"] == azure.subscription
    assert outputs["vnet"].startswith("vnet")
    assert len(outputs["vnet"]) == len("vnet") + 8
    assert machine(azure).user_data == USER_DATA

    assert bench.changes("up", participant(azure)) == {"same": PIECES}
    bench.run("refresh", participant(azure))
    assert bench.changes("refresh", participant(azure)) == {"same": PIECES}
    assert bench.changes("preview", participant(azure)) == {"same": PIECES}

    changed = participant(azure, size="Standard_D4s_v5", source="203.0.113.7/32", tags={"a": "b"})
    assert bench.changes("up", changed) == {"same": PIECES - 3, "update": 3}
    assert (machine(azure).size, machine(azure).boots) == ("Standard_D4s_v5", 1)
    assert [rule.cidr for rule in machine(azure).ingress] == ["203.0.113.7/32"]

    assert bench.changes("destroy", changed) == {"delete": PIECES}
    assert azure.kinds() == {}


def test_a_machine_gets_an_identity_and_a_role_loses_both_and_takes_its_role_with_it(
    bench: Bench, azure: Azure
) -> None:
    own = participant(azure, identity="SystemAssigned")
    assert bench.changes("preview", own) == {"create": PIECES + 1}
    assert bench.changes("up", own) == {"create": PIECES + 1}
    assert azure.kinds()["roleAssignments"] == 1
    bench.run("refresh", own)
    assert bench.changes("up", own) == {"same": PIECES + 1}
    assert bench.changes("up", participant(azure, identity="None")) == {"same": PIECES - 1, "update": 1, "delete": 1}
    assert "roleAssignments" not in azure.kinds()
    assert azure.compute.virtual_machines.get("rg", "vm").identity is None
    assert bench.changes("up", own) == {"same": PIECES - 1, "update": 1, "create": 1}
    # A new machine has a new identity: the assignment of the old one is gone with it.
    anew = participant(azure, identity="SystemAssigned", user_data="#cloud-config\n", replace=["osProfile.customData"])
    assert bench.changes("up", anew) == {"same": PIECES - 1, "replace": 2}
    assert azure.kinds()["roleAssignments"] == 1
    bench.run("destroy", anew)
    assert azure.kinds() == {}


def test_new_user_data_is_refused_by_arm_unless_the_program_asks_for_a_replacement(bench: Bench, azure: Azure) -> None:
    bench.run("up", participant(azure))
    before = machine(azure)
    with pytest.raises(auto.CommandError, match="PropertyChangeNotAllowed"):
        bench.run("up", participant(azure, user_data="#cloud-config\n"))
    assert machine(azure) == before
    replacing = participant(azure, user_data="#cloud-config\n", replace=["osProfile.customData"])
    assert bench.changes("up", replacing)["replace"] == 1
    after = machine(azure)
    assert (after.user_data, after.public_ip) == ("#cloud-config\n", before.public_ip)
    assert after.id != before.id
    bench.run("destroy", replacing)
    assert azure.kinds() == {}


@pytest.mark.slow
def test_what_was_deleted_or_changed_by_hand_is_mended(bench: Bench, azure: Azure) -> None:
    program = participant(azure)
    bench.run("up", program)
    address = machine(azure).public_ip
    azure.compute.virtual_machines.begin_delete("rg", "vm").result()
    azure.network.security_rules.begin_delete("rg", "nsg", "ssh").result()
    azure.network.public_ip_addresses.update_tags("rg", "ip", {"tags": {"by": "hand"}})
    bench.run("refresh", program)
    assert bench.changes("up", program) == {"same": PIECES - 3, "create": 2, "update": 1}
    assert machine(azure).public_ip == address
    assert azure.network.public_ip_addresses.get("rg", "ip").tags in (None, {})
    bench.run("destroy", program)


@pytest.mark.slow
def test_a_zone_without_capacity_is_told_and_the_next_up_mends_the_machine(
    bench: Bench, azure: Azure, fault: Callable[..., None]
) -> None:
    program = participant(azure, zones=["2"])
    fault(no_capacity=["westeurope-2"])
    with pytest.raises(auto.CommandError, match="ZonalAllocationFailed"):
        bench.run("up", program)
    fault()
    assert bench.changes("up", program) == {"same": PIECES - 1, "update": 1}
    assert machine(azure).zone == "2"
    bench.run("destroy", program)
    assert azure.kinds() == {}


def test_the_wrong_subscription_is_refused_before_anything_is_made(bench: Bench, azure: Azure) -> None:
    theirs = azure.server.add_subscription(
        "f0e1d2c3-0000-4000-8000-00000000000b", "aaaa0000-0000-4000-8000-00000000000b"
    )
    foreign = Azure(azure.server, theirs.id, azure.environment)
    with pytest.raises(auto.CommandError, match="InvalidAuthenticationTokenTenant"):
        bench.run("up", participant(foreign))
    assert foreign.kinds() == {}
