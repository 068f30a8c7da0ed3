"""How many ingress rules each participant's security group will have, and how many it may have."""

from __future__ import annotations

from collections.abc import Iterable

from deployer.preflight.model import Finding
from deployer.preflight.place import NotAsked, Place
from deployer.preflight.quota import aws_quota
from stacks.args import MAX_RULES, door_rules
from stacks.rules import ingress_rules

AZURE_RULES = 1000
CODE = "L-0EA8095F"


def check(place: Place) -> Iterable[Finding]:
    """AWS's quota can be raised or lowered by an account; where it can't be asked, the default holds."""
    if not place.wanted:
        return
    limit, unasked = AZURE_RULES, ""
    if place.cloud == "aws":
        try:
            limit = aws_quota(place, "vpc", CODE)[1]
        except NotAsked as error:
            limit, unasked = MAX_RULES, str(error)
    for one in place.wanted:
        count = len(ingress_rules(one.args)) + door_rules(one.args.ssh_access)
        told = f"{count} of {limit} rules"
        if count > limit:
            yield Finding(
                "rules",
                told,
                "refused",
                one.name,
                why="each network that may reach a port is one rule of its security group",
                next_step="name fewer, wider networks (ssh_from, from, egress, allow), or ask AWS for more ("
                + CODE
                + ")",
            )
        else:
            yield Finding("rules", told, "ok", one.name, why=f"AWS's default; {unasked}" if unasked else "")
