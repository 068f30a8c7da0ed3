"""`ssh_access: during-operations`: SSH is open for this machine's address while a command needs it, else closed.

The stack has no rule for SSH. Whoever logs in opens the door past the engine, by one rule that is tagged as ours, and
closes it with the last login that is over. A command that is killed leaves its rule: the next one takes it away, and
`status --refresh` and `reap` find it by its tags.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deployer.errors import CloudError
from stacks.names import azure_name, tag_key

if TYPE_CHECKING:
    from deployer.ledger import Row

DOOR = "door"
"""The logical name, after the participant's, of the rule; on Azure its whole name."""

AZURE_SLOT = 900
"""Before every rule of the stack (from 1000 on)."""


class Door(Protocol):
    """One participant's rule in its cloud."""

    def open(self, cidr: str, port: int) -> None:
        """Let exactly this network in; what an earlier command left open for another one is closed."""
        ...

    def close(self) -> None:
        """Let nobody in any more."""
        ...


@dataclass(frozen=True)
class AwsDoor:
    """A rule of the participant's security group, found by its tags."""

    ec2: Any
    federation: str
    deployment: str
    participant: str

    def _filters(self) -> list[dict[str, Any]]:
        whose = {"federation": self.federation, "deployment": self.deployment, "participant": self.participant}
        return [{"Name": f"tag:{tag_key('aws', name)}", "Values": [value]} for name, value in whose.items()]

    def _group(self) -> str:
        groups = self.ec2.describe_security_groups(Filters=self._filters())["SecurityGroups"]
        if not groups:
            raise CloudError("has no security group", participant=self.participant, next_step="fedspan up")
        return str(groups[0]["GroupId"])

    def _rules(self, group: str) -> list[dict[str, Any]]:
        pages = self.ec2.get_paginator("describe_security_group_rules").paginate(
            Filters=[{"Name": "group-id", "Values": [group]}]
        )
        name = f"{self.participant}-{DOOR}"
        key = tag_key("aws", "logical-name")
        rules = [rule for page in pages for rule in page["SecurityGroupRules"]]
        return [rule for rule in rules if {tag["Key"]: tag["Value"] for tag in rule.get("Tags", [])}.get(key) == name]

    def open(self, cidr: str, port: int) -> None:
        """See `Door.open`."""
        group = self._group()
        there = self._rules(group)
        if any(rule.get("CidrIpv4") == cidr and rule.get("FromPort") == port for rule in there):
            return
        self._revoke(group, there)
        own = {"federation": self.federation, "deployment": self.deployment, "participant": self.participant}
        own["logical-name"] = f"{self.participant}-{DOOR}"
        tags = [{"Key": tag_key("aws", name), "Value": value} for name, value in own.items()]
        permission = {
            "IpProtocol": "tcp",
            "FromPort": port,
            "ToPort": port,
            "IpRanges": [{"CidrIp": cidr, "Description": "fedspan, while a command runs"}],
        }
        self.ec2.authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[permission],
            TagSpecifications=[{"ResourceType": "security-group-rule", "Tags": tags}],
        )

    def close(self) -> None:
        """See `Door.close`."""
        group = self._group()
        self._revoke(group, self._rules(group))

    def _revoke(self, group: str, rules: list[dict[str, Any]]) -> None:
        ids = [rule["SecurityGroupRuleId"] for rule in rules]
        if ids:
            self.ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=ids)


@dataclass(frozen=True)
class AzureDoor:
    """A rule of fixed name and priority in the participant's security group, whose name is fixed too."""

    rules: Any
    federation: str
    participant: str

    def _place(self) -> tuple[str, str, str]:
        group, firewall = (azure_name(self.federation, self.participant, kind) for kind in ("rg", "nsg"))
        return group, firewall, DOOR

    def open(self, cidr: str, port: int) -> None:
        """See `Door.open`."""
        rule = {
            "properties": {
                "priority": AZURE_SLOT,
                "direction": "Inbound",
                "access": "Allow",
                "protocol": "Tcp",
                "sourceAddressPrefix": cidr,
                "sourcePortRange": "*",
                "destinationAddressPrefix": "*",
                "destinationPortRange": str(port),
                "description": "fedspan, while a command runs",
            }
        }
        self.rules.begin_create_or_update(*self._place(), rule).result()

    def close(self) -> None:
        """See `Door.close`."""
        self.rules.begin_delete(*self._place()).result()


@dataclass
class _Held:
    """Who holds one participant's door open. Its lock is held while the cloud is asked; no other door waits for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    logins: int = 0


_HELD: defaultdict[str, _Held] = defaultdict(_Held)
_HELD_LOCK = threading.Lock()


def hold_open(row: Row) -> Callable[[], None]:
    """Open the door of a participant's machine for this machine's address; returns what closes it again.

    Logins of one command share it: the last one to end closes it.

    Raises:
        CredentialsError, CloudError: the cloud can't be asked.
    """
    with _HELD_LOCK:
        held = _HELD[row.name]
    with held.lock:
        if held.logins == 0:
            door, cidr = door_of(row)
            _told(row, lambda: door.open(cidr, row.ssh_port or 22))
        held.logins += 1

    def close() -> None:
        with held.lock:
            held.logins -= 1
            if held.logins == 0:
                _told(row, door_of(row)[0].close)

    return close


def door_of(row: Row) -> tuple[Door, str]:
    """A participant's door, and the network to let in: this machine's address."""
    from deployer import realm as realms
    from deployer.down import member_of

    realm = realms.current()
    member = member_of(row, Path())
    federation, deployment = str(row.outputs["federation"]), str(row.outputs["deployment"])
    world: Any = realm.world(row.cloud or "", member, realm.access(row.cloud or "", member))
    cidr = f"{realm.my_address()}/32"
    if row.cloud == "aws":
        return AwsDoor(world.ec2(row.region), federation, deployment, row.name), cidr
    return AzureDoor(world.rules, federation, row.name), cidr


def _told(row: Row, work: Callable[[], None]) -> None:
    """Do it; a cloud's refusal becomes ours."""
    from azure.core.exceptions import AzureError
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        work()
    except (BotoCoreError, ClientError, AzureError) as error:
        raise CloudError(
            "the way for SSH could not be opened or closed",
            participant=row.name,
            why=str(error).splitlines()[0],
            next_step="fedspan status --refresh shows the rules as they are",
        ) from error
