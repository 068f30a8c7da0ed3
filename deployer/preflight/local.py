"""What can be checked without a cloud: kits with their certificates, and from where SSH will be open."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from deployer.errors import FedspanError, KitError
from deployer.preflight.model import Finding

if TYPE_CHECKING:
    from deployer.deployment import Deployment
    from deployer.member import Member

EXPIRES_SOON = timedelta(days=14)


def check_kits(members: Iterable[Member], ca_fingerprint: str | None) -> Iterable[Finding]:
    """Signature of each kit, and how long its certificate lasts."""
    from cryptography import x509

    from startup_kits.kit import CERTIFICATE, Kit

    for member in members:
        try:
            kit = Kit.verify(member.kit, ca_fingerprint)
            certificate = x509.load_pem_x509_certificate((kit.path / CERTIFICATE).read_bytes())
        except FedspanError as error:
            what, why = error.what, error.why or ""
            yield Finding("kits", what, "refused", member.name, why, error.next_step or "", error=KitError)
            continue
        left = certificate.not_valid_after_utc - datetime.now(timezone.utc)
        until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        if left < EXPIRES_SOON:
            told = f"its certificate ends on {until}"
            yield Finding("kits", told, "warning", member.name, next_step="fedspan provision renews it")
        else:
            yield Finding("kits", f"signed, its certificate lasts until {until}", participant=member.name)


def check_address(deployment: Deployment) -> Iterable[Finding]:
    """From where SSH will be open: this machine's own address must be among it, and never the world."""
    wanted = deployment.ssh_from
    opened = [one for one in deployment.members.values() if one.cloud and not one.existing.get("security_group")]
    try:
        mine = deployment.realm.my_address()
    except FedspanError as error:
        if isinstance(wanted, str):
            yield Finding(
                "address",
                error.what,
                "refused",
                why=error.why or "",
                next_step=error.next_step or "",
                error=type(error),
            )
        else:
            yield Finding("address", error.what, "unknown", why=error.why or "")
        return
    if isinstance(wanted, str):
        yield Finding("address", f"SSH will be open from {mine}/32, as the clouds see this machine")
        return
    networks = [ipaddress.IPv4Network(text, strict=False) for text in wanted]
    told = ", ".join(map(str, networks))
    if any(network.prefixlen == 0 for network in networks):
        yield Finding("address", "ssh_from: opens SSH to the world", "refused", next_step="ssh_from: auto")
    elif any(ipaddress.IPv4Address(mine) in network for network in networks):
        yield Finding("address", f"SSH will be open from {told}; this machine is {mine}")
    elif opened and all(one.jump for one in opened):
        yield Finding("address", f"SSH will be open from {told}, where your jump hosts are")
    else:
        yield Finding(
            "address",
            f"SSH will be open from {told}, and this machine is {mine}",
            "warning",
            why="fedspan could not log in to what it makes",
            next_step=f"ssh_from: [{mine}/32, …] in federation.yml, or work from a machine that lies in it",
        )
