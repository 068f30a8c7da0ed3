"""What the emulated Azure holds, in the sandbox's own words: machines to run, and everything that exists."""

from __future__ import annotations

import ipaddress
from typing import Any

from deployer.sandbox.azure import rights
from deployer.sandbox.azure.authorization import ASSIGNMENTS
from deployer.sandbox.azure.comp_checks import get
from deployer.sandbox.azure.ids import GROUP_TYPE, MACHINES
from deployer.sandbox.azure.net_addresses import INTERFACES
from deployer.sandbox.azure.state import Body, Cloud, Record
from deployer.sandbox.model import InventoryItem, MachineSpec, Rule

_EVERYWHERE = "0.0.0.0/0"
Span = tuple[int, int]
Net = ipaddress.IPv4Network


def inventory(cloud: Cloud) -> list[InventoryItem]:
    """Every resource that exists, groups included, those that are being deleted too."""
    with cloud.lock:
        found = [
            InventoryItem("azure", g.id.subscription, g.location, GROUP_TYPE, str(g.id), g.id.group, dict(g.tags))
            for g in cloud.groups.values()
        ]
        for record in cloud.records.values():
            place = record.id
            top = record
            while not top.location and top.id.parent is not None and (parent := cloud.find(top.id.parent)) is not None:
                top = parent
            found.append(
                InventoryItem(
                    "azure", place.subscription, top.location, place.type, str(place), place.name, record.tags
                )
            )
        for one in rights.standing(cloud):
            whose, _, rest = one.scope.removeprefix("/subscriptions/").partition("/")
            region = str(getattr(one.home, "location", "")) if rest else ""
            found.append(InventoryItem("azure", whose, region, ASSIGNMENTS, one.id, one.name, {}))
        return found


def machines(cloud: Cloud) -> list[MachineSpec]:
    """The machines as they should run. One that was never placed (no capacity, still being made) is none yet."""
    with cloud.lock:
        return [
            _machine(cloud, record) for record in cloud.of_type(MACHINES) if record.inner.get("power") != "starting"
        ]


def _machine(cloud: Cloud, record: Record) -> MachineSpec:
    properties = record.properties
    profile = properties["osProfile"]
    keys = get(profile, "linuxConfiguration.ssh.publicKeys") or []
    nic = next(
        (n for n in cloud.of_type(INTERFACES) if n.inner.get("vm") == record.id.key and n.inner.get("primary")), None
    )
    config = _primary(nic)
    address = cloud.find(get(config, "properties.publicIPAddress.id") or "")
    disks = sorted(
        (item["lun"], str(item["managedDisk"]["id"]))
        for item in properties["storageProfile"]["dataDisks"]
        if cloud.find(item["managedDisk"]["id"]) is not None
    )
    return MachineSpec(
        id=f"{record.id}#{record.inner['vm_id']}",
        cloud="azure",
        account=record.id.subscription,
        region=record.location,
        zone=record.zones[0] if record.zones else None,
        size=get(properties, "hardwareProfile.vmSize"),
        running=record.inner["power"] == "running",
        user_data=record.inner["custom_data"].decode("utf-8", "replace"),
        login_keys=tuple((profile["adminUsername"], key["keyData"].strip()) for key in keys),
        public_ip=address.inner["address"] if address else None,
        private_ip=get(config, "properties.privateIPAddress") or "",
        network=str(get(config, "properties.subnet.id") or "").lower().partition("/subnets/")[0],
        ingress=tuple(_ingress(cloud, nic)),
        volumes=tuple((disk, f"lun{lun}") for lun, disk in disks),
        tags=record.tags,
        boots=record.inner["boots"],
    )


def _primary(nic: Record | None) -> Body:
    configs: list[Body] = nic.properties["ipConfigurations"] if nic else []
    return next((config for config in configs if get(config, "properties.primary")), {})


# -- rules -----------------------------------------------------------------------------------------------------
def _ingress(cloud: Cloud, nic: Record | None) -> list[Rule]:
    """What may come in: allowed by the subnet's group and by the interface's. Without a group nothing is (Standard)."""
    if nic is None:
        return []
    subnet = cloud.find(get(_primary(nic), "properties.subnet.id") or "")
    groups = [
        group
        for holder in (subnet, nic)
        if holder is not None and (group := cloud.find(get(holder.properties, "networkSecurityGroup.id") or ""))
    ]
    if not groups:
        return []
    unique = {group.id.key: group for group in groups}
    allowed = [resolve(cloud, group) for group in unique.values()]
    result = allowed[0]
    for other in allowed[1:]:
        result = _both(result, other)
    return [Rule(first, last, "Tcp", str(net)) for (first, last), net in _merged(result)]


def resolve(cloud: Cloud, group: Record) -> list[tuple[Span, Net]]:
    """The TCP permissions of a group's inbound rules: by priority, each rule taking only what none before it took."""
    rules = sorted(
        (rule.properties for rule in cloud.children(group.id, "securityRules")), key=lambda rule: int(rule["priority"])
    )
    allowed: list[tuple[Span, Net]] = []
    decided: list[tuple[Span, Net]] = []
    for rule in rules:
        if rule["direction"] != "Inbound" or rule["protocol"].lower() not in ("tcp", "*"):
            continue
        boxes = [(span, net) for span in _spans(rule) for net in _nets(rule)]
        fresh = boxes
        for taken in decided:
            fresh = [piece for box in fresh for piece in _without(box, taken)]
        if rule["access"] == "Allow":
            allowed += fresh
        decided += boxes
    return allowed


def _spans(rule: Body) -> list[Span]:
    texts = rule.get("destinationPortRanges") or [rule["destinationPortRange"]]
    spans = []
    for text in texts:
        first, _, last = ("0-65535" if text == "*" else text).partition("-")
        spans.append((int(first), int(last or first)))
    return spans


def _nets(rule: Body) -> list[Net]:
    texts: list[Any] = rule.get("sourceAddressPrefixes") or [rule.get("sourceAddressPrefix")]
    found = []
    for text in texts:
        if text in ("*", "Internet"):
            found.append(Net(_EVERYWHERE))
            continue
        try:
            found.append(Net(str(text), strict=False))
        except ValueError:
            continue  # IPv6, or a tag for Azure's own services: nobody in a sandbox has such a source
    return found


def _without(box: tuple[Span, Net], taken: tuple[Span, Net]) -> list[tuple[Span, Net]]:
    """`box` less `taken`, as boxes."""
    (first, last), net = box
    (low, high), other = taken
    if last < low or high < first or not net.overlaps(other):
        return [box]
    pieces: list[tuple[Span, Net]] = []
    if first < low:
        pieces.append(((first, low - 1), net))
    if high < last:
        pieces.append(((high + 1, last), net))
    inner = (max(first, low), min(last, high))
    if not net.subnet_of(other):
        pieces += [(inner, rest) for rest in net.address_exclude(other)]
    return pieces


def _both(left: list[tuple[Span, Net]], right: list[tuple[Span, Net]]) -> list[tuple[Span, Net]]:
    """What both lists allow."""
    found = []
    for (first, last), net in left:
        for (low, high), other in right:
            if first <= high and low <= last and net.overlaps(other):
                found.append(((max(first, low), min(last, high)), net if net.subnet_of(other) else other))
    return found


def _merged(boxes: list[tuple[Span, Net]]) -> list[tuple[Span, Net]]:
    by_span: dict[Span, list[Net]] = {}
    for span, net in boxes:
        by_span.setdefault(span, []).append(net)
    return [(span, net) for span in sorted(by_span) for net in ipaddress.collapse_addresses(by_span[span])]
