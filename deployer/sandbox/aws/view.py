"""What exists in the emulated AWS, over all accounts and regions, read from moto's memory in this process."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from deployer.sandbox.addresses import SPACES
from deployer.sandbox.aws.world import LOCK
from deployer.sandbox.model import InventoryItem, MachineSpec, Rule


def _backends() -> Iterator[tuple[str, str, Any]]:
    """(account, region, backend) of what has been used; nothing, and nothing imported, before moto is loaded."""
    module = sys.modules.get("moto.ec2.models")
    if module is None or not hasattr(module, "ec2_backends"):
        return
    for account, regions in list(module.ec2_backends.items()):
        for region, backend in list(regions.items()):
            yield account, region, backend


def _tags(backend: Any, resource_id: str) -> dict[str, str]:
    return dict(backend.tags.get(resource_id, {}))


def _instances(backend: Any) -> Iterator[Any]:
    for reservation in list(backend.reservations.values()):
        for instance in list(reservation.instances):
            if instance.state != "terminated":
                yield instance


def _rules(backend: Any, groups: Iterable[Any]) -> Iterator[Rule]:
    """Ingress of security groups with CIDRs only: a rule that names a group becomes one for each of its members."""
    for group in groups:
        for rule in group.ingress_rules:
            first, last = rule.from_port, rule.to_port
            if rule.ip_protocol == "-1" or first is None or first < 0:
                first, last = 0, 65535
            if cidr := rule.ip_range.get("CidrIp"):
                yield Rule(int(first), int(last), str(rule.ip_protocol), cidr)
            elif member_of := rule.source_group.get("GroupId"):
                for eni in list(backend.enis.values()):
                    if member_of in (worn.id for worn in eni.group_set):
                        yield Rule(int(first), int(last), str(rule.ip_protocol), f"{eni.private_ip_address}/32")


def _user_data(instance: Any) -> str:
    """The text that the machine reads from its metadata; moto keeps it as it came, in base64."""
    data = instance.user_data
    if not data:
        return ""
    raw = str(data).encode() if not isinstance(data, bytes) else data
    with contextlib.suppress(binascii.Error, ValueError):
        return base64.b64decode(raw, validate=True).decode("utf-8", "replace")
    return raw.decode("utf-8", "replace")


def _address(eni: Any) -> str | None:
    """The public address, if it is one that can be reached here: an Elastic IP of the sandbox's own."""
    with contextlib.suppress(ValueError):
        address = ipaddress.IPv4Address(eni.public_ip or "0.0.0.0")  # noqa: S104 - nobody listens there
        if any(address in ipaddress.IPv4Network(space) for space in SPACES):
            return str(address)
    return None


def _ways_out(backend: Any, eni: Any) -> list[Any]:
    """The default routes of the interface's subnet."""
    tables = list(backend.route_tables.values())
    table = next((t for t in tables if eni.subnet_id in t._associations.values()), None) or next(
        (t for t in tables if t.vpc_id == eni.vpc_id and t.main_association_id is not None), None
    )
    routes = list(table._routes.values()) if table is not None else []
    return [route for route in routes if route.destination_cidr_block == "0.0.0.0/0"]


def _reachable(backend: Any, eni: Any) -> bool:
    """Does traffic find its way: a gateway on the network, and a route to it from the interface's subnet?"""
    gateways = (route.gateway for route in _ways_out(backend, eni))
    return any(getattr(gateway, "vpc", None) is not None and gateway.vpc.id == eni.vpc_id for gateway in gateways)


def _nat_address(backend: Any, eni: Any) -> str | None:
    """The public address of the NAT gateway that the interface's subnet goes out by; None where it has none."""
    for route in _ways_out(backend, eni):
        gateway = route.nat_gateway
        if gateway is not None and gateway.state == "available" and (found := _address(gateway._eni)):
            return found
    return None


def machines() -> list[MachineSpec]:
    """Every instance that is not terminated. A public address without a route to a gateway is nobody's to reach."""
    with LOCK:
        return sorted(_machines(), key=lambda spec: spec.id)


def _machines() -> Iterator[MachineSpec]:
    for account, region, backend in _backends():
        for instance in _instances(backend):
            eni = instance.nics[0]
            key = backend.key_pairs.get(instance.key_name) if instance.key_name else None
            public = _address(eni) if _reachable(backend, eni) else None
            keys = (("ubuntu", key.public_key.strip()),) if key is not None and key.material_public else ()
            yield MachineSpec(
                id=instance.id,
                cloud="aws",
                account=account,
                region=region,
                zone=instance.availability_zone,
                size=instance.instance_type,
                running=instance.state == "running",
                user_data=_user_data(instance),
                login_keys=keys,
                public_ip=public,
                private_ip=eni.private_ip_address,
                network=eni.vpc_id,
                egress_ip=None if public else _nat_address(backend, eni),
                ingress=tuple(dict.fromkeys(_rules(backend, eni.group_set))),
                volumes=tuple(
                    (device.volume_id, name)
                    for name, device in instance.get_block_device_mapping
                    if name != instance.root_device_name
                ),
                tags=_tags(backend, instance.id),
                metadata_hops=instance.metadata_options.http_put_response_hop_limit,
                boots=getattr(instance, "sandbox_boots", 0),
            )


def inventory() -> list[InventoryItem]:
    """Every resource that somebody made; an account's default network, and what comes with a network, are left out."""
    found = []
    with LOCK:
        for account, region, backend in _backends():
            for kind, resource_id, name in _resources(backend):
                tags = _tags(backend, resource_id)
                found.append(InventoryItem("aws", account, region, kind, resource_id, tags.get("Name") or name, tags))
    return sorted(found, key=lambda item: (item.account, item.region, item.kind, item.id))


def _resources(backend: Any) -> Iterator[tuple[str, str, str]]:
    default_vpcs = {vpc.id for vpc in list(backend.vpcs.values()) if vpc.is_default}
    for vpc in list(backend.vpcs.values()):
        if vpc.id not in default_vpcs:
            yield "ec2:vpc", vpc.id, ""
    for by_id in list(backend.subnets.values()):
        for subnet in list(by_id.values()):
            if subnet.vpc_id not in default_vpcs:
                yield "ec2:subnet", subnet.id, ""
    for gateway in list(backend.internet_gateways.values()):
        if not (gateway.vpc and gateway.vpc.id in default_vpcs):
            yield "ec2:internet-gateway", gateway.id, ""
    for table in list(backend.route_tables.values()):
        if table.main_association_id is None:
            yield "ec2:route-table", table.id, ""
    for by_id in list(backend.groups.values()):
        for group in list(by_id.values()):
            if not group.is_default:
                yield "ec2:security-group", group.id, group.name
    for eni in list(backend.enis.values()):
        yield "ec2:network-interface", eni.id, ""
    for address in list(backend.addresses):
        yield "ec2:elastic-ip", str(address.allocation_id), address.public_ip
    for key in list(backend.key_pairs.values()):
        yield "ec2:key-pair", key.id, key.key_name
    for instance in _instances(backend):
        yield "ec2:instance", instance.id, ""
    for volume in list(backend.volumes.values()):
        yield "ec2:volume", volume.id, ""
