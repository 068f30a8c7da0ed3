"""Whatever is made, changed and deleted, in whatever order: what exists always fits together."""

from __future__ import annotations

import ipaddress
import itertools
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from deployer.sandbox.addresses import AddressPool
from deployer.sandbox.azure import ArmServer
from deployer.sandbox.azure.arm_client import ArmClient, ArmRefusal, Identity
from deployer.sandbox.faults import FaultBook, Faults

from .arm_kit import ADDRESS, DISK, REGION, RULE, vm_body

NAMES = st.sampled_from(["a", "b"])
GROUPS = st.sampled_from(["rg", "other"])
VERSION = "2024-05-01"
NETWORK, COMPUTE = "providers/Microsoft.Network", "providers/Microsoft.Compute"
# These may only come from a request that made no sense where things stood, never from a broken emulator.
UNEXPECTED = {"InternalServerError", ""}


class Life(RuleBasedStateMachine):
    """Random requests by one client. Refusals are fine; what stands afterwards must fit together."""

    server: ArmServer
    client: ArmClient
    numbers = itertools.count()

    @initialize()
    def begin(self) -> None:
        subscription = f"00000000-0000-4000-8000-{next(self.numbers):012d}"
        one = self.server.add_subscription(subscription)
        self.root = f"/subscriptions/{subscription}/resourceGroups"
        self.client = ArmClient(
            self.server.url,
            self.server.ca_file,
            Identity(subscription, one.tenant_id, one.client_id, one.client_secret),
        )
        self.seen: dict[str, str] = {}

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        for group in ("rg", "other", "rg"):  # the first may be held by the second
            self.attempt(lambda group=group: self.client.delete(f"{self.root}/{group}", VERSION, _never))
        assert [item for item in self.server.inventory() if item.id.startswith(self.root)] == []
        owners = self.server.cloud.addresses.owned().values()
        assert [owner for owner in owners if owner.startswith(self.root)] == []
        self.client.close()

    def attempt(self, do: Any) -> bool:
        try:
            do()
        except ArmRefusal as refusal:
            refused: ArmRefusal | None = refusal
        else:
            refused = None
        assert refused is None or refused.code not in UNEXPECTED, refused
        return refused is None

    def put(self, path: str, body: dict[str, Any]) -> None:
        """A PUT; if it is accepted, doing it again changes nothing (it is idempotent)."""

        def do() -> None:
            _, finish = self.client.put(f"{self.root}/{path}", VERSION, body, _never)
            finish()

        if self.attempt(do):
            before = self.client.get(f"{self.root}/{path}", VERSION, _never)
            do()
            after = self.client.get(f"{self.root}/{path}", VERSION, _never)
            assert _without_etags(before) == _without_etags(after)

    def id(self, group: str, path: str) -> dict[str, str]:
        return {"id": f"{self.root}/{group}/{path}"}

    @rule(group=GROUPS)
    def make_group(self, group: str) -> None:
        self.put(group, {"location": REGION})

    @rule(group=GROUPS)
    def delete_group(self, group: str) -> None:
        self.attempt(lambda: self.client.delete(f"{self.root}/{group}", VERSION, _never))

    @rule(group=GROUPS, prefix=st.sampled_from(["10.0.0.0/16", "10.0.0.0/24", "10.1.0.0/16"]), subnets=st.booleans())
    def make_network(self, group: str, prefix: str, subnets: bool) -> None:
        properties: dict[str, Any] = {"addressSpace": {"addressPrefixes": [prefix]}}
        if subnets:
            properties["subnets"] = [{"name": "a", "properties": {"addressPrefix": "10.0.0.0/25"}}]
        self.put(f"{group}/{NETWORK}/virtualNetworks/net", {"location": REGION, "properties": properties})

    @rule(group=GROUPS, name=NAMES, prefix=st.sampled_from(["10.0.0.0/25", "10.0.0.128/25", "10.0.0.0/28"]))
    def make_subnet(self, group: str, name: str, prefix: str) -> None:
        body = {"properties": {"addressPrefix": prefix}}
        self.put(f"{group}/{NETWORK}/virtualNetworks/net/subnets/{name}", body)

    @rule(group=GROUPS, priority=st.integers(99, 102), name=NAMES)
    def make_rule(self, group: str, priority: int, name: str) -> None:
        self.put(f"{group}/{NETWORK}/networkSecurityGroups/nsg", {"location": REGION})
        body = {"properties": {**RULE, "priority": priority}}
        self.put(f"{group}/{NETWORK}/networkSecurityGroups/nsg/securityRules/{name}", body)

    @rule(group=GROUPS, name=NAMES)
    def make_address(self, group: str, name: str) -> None:
        self.put(f"{group}/{NETWORK}/publicIPAddresses/{name}", ADDRESS)

    @rule(group=GROUPS, name=NAMES, subnet=NAMES, address=NAMES, other=GROUPS, bare=st.booleans())
    def make_interface(self, group: str, name: str, subnet: str, address: str, other: str, bare: bool) -> None:
        inner: dict[str, Any] = {"subnet": self.id(group, f"{NETWORK}/virtualNetworks/net/subnets/{subnet}")}
        if not bare:
            inner["publicIPAddress"] = self.id(other, f"{NETWORK}/publicIPAddresses/{address}")
        body = {"location": REGION, "properties": {"ipConfigurations": [{"name": "c", "properties": inner}]}}
        self.put(f"{group}/{NETWORK}/networkInterfaces/{name}", body)

    @rule(group=GROUPS, name=NAMES)
    def make_disk(self, group: str, name: str) -> None:
        self.put(f"{group}/{COMPUTE}/disks/{name}", DISK)

    @rule(group=GROUPS, name=NAMES, nic=NAMES, disk=st.sampled_from([None, "a", "b"]), full=st.booleans())
    def make_machine(self, group: str, name: str, nic: str, disk: str | None, full: bool) -> None:
        body = vm_body(self.id(group, f"{NETWORK}/networkInterfaces/{nic}")["id"], zones=["1"] if full else ...)
        storage = body["properties"]["storageProfile"]
        storage["osDisk"]["name"] = f"os-{name}"
        if disk:
            managed = self.id(group, f"{COMPUTE}/disks/{disk}")
            storage["dataDisks"] = [{"lun": 0, "createOption": "Attach", "managedDisk": managed}]
        self.put(f"{group}/{COMPUTE}/virtualMachines/{name}", body)

    @rule(
        group=GROUPS,
        name=NAMES,
        what=st.sampled_from(
            [
                f"{NETWORK}/virtualNetworks/net",
                f"{NETWORK}/virtualNetworks/net/subnets/",
                f"{NETWORK}/networkSecurityGroups/nsg",
                f"{NETWORK}/publicIPAddresses/",
                f"{NETWORK}/networkInterfaces/",
                f"{COMPUTE}/disks/",
                f"{COMPUTE}/disks/os-",
                f"{COMPUTE}/virtualMachines/",
            ]
        ),
    )
    def delete(self, group: str, name: str, what: str) -> None:
        path = f"{self.root}/{group}/{what}" + ("" if what[-1] not in "/-" else name)
        if self.attempt(lambda: self.client.delete(path, VERSION, _never)):
            assert self.client.get(path, VERSION, _never) is None

    @rule(full=st.booleans())
    def zone_one_is_full(self, full: bool) -> None:
        self.server.cloud.faults.write(Faults(no_capacity=("westeurope-1",) if full else ()))

    @invariant()
    def everything_fits_together(self) -> None:
        if not hasattr(self, "root"):
            return
        items = {item.id.lower(): item for item in self.server.inventory() if item.id.startswith(self.root)}
        machines = [m for m in self.server.machines() if m.id.startswith(self.root)]
        addresses = [m.public_ip for m in machines if m.public_ip]
        assert len(set(addresses)) == len(addresses)
        attached = [volume.lower() for m in machines for volume, _ in m.volumes]
        assert len(set(attached)) == len(attached)
        assert set(attached) <= set(items)
        for item in items.values():
            assert "/".join(item.id.split("/")[:5]).lower() in items  # its group exists
        held: dict[str, str] = {}
        for item in items.values():
            if not item.kind.endswith(("networkInterfaces", "virtualNetworks", "publicIPAddresses")):
                continue
            shown = self.client.get(item.id, VERSION, _never)
            assert shown is not None
            inner = shown["properties"]
            assert inner["provisioningState"] in ("Succeeded", "Failed")
            if item.kind.endswith("publicIPAddresses"):
                # a static address stays the same for its resource's life
                assert self.seen.setdefault(inner["resourceGuid"], inner["ipAddress"]) == inner["ipAddress"]
            if item.kind.endswith("virtualNetworks"):
                outer = [ipaddress.ip_network(net) for net in inner["addressSpace"]["addressPrefixes"]]
                nets = [ipaddress.ip_network(s["properties"]["addressPrefix"]) for s in inner["subnets"]]
                assert all(any(net.subnet_of(one) for one in outer) for net in nets)  # type: ignore[arg-type]
                assert not any(a.overlaps(b) for a, b in itertools.combinations(nets, 2))
            for config in inner.get("ipConfigurations", []):
                subnet = config["properties"]["subnet"]["id"].lower()
                assert subnet in items
                private = (subnet, config["properties"]["privateIPAddress"])
                assert held.setdefault(str(private), item.id) == item.id
                public = config["properties"].get("publicIPAddress", {}).get("id", "").lower()
                if public:
                    assert public in items
                    assert held.setdefault(public, item.id) == item.id
            owner = inner.get("virtualMachine", {}).get("id", "").lower()
            assert not owner or owner in items


def _never(_seconds: float) -> None:
    """Nothing here takes time, so nobody waits."""


def _without_etags(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_etags(item) for key, item in value.items() if key != "etag"}
    return [_without_etags(item) for item in value] if isinstance(value, list) else value


def test_random_lives_of_resources_keep_everything_fitting_together(tmp_path: Any) -> None:
    pool = AddressPool("127.204.0.0/22")
    with ArmServer(addresses=pool, home=tmp_path, faults=FaultBook(None)) as server:
        Life.server = server

        run_state_machine_as_test(
            Life,
            settings=settings(
                max_examples=25,
                stateful_step_count=40,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        assert pool.owned() == {}
