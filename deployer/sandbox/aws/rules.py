"""What EC2 refuses before moto sees a call: all rules, by action."""

from __future__ import annotations

from collections.abc import Callable

from deployer.sandbox.aws import rules_machines, rules_network
from deployer.sandbox.aws.query import Query
from deployer.sandbox.aws.world import World

RULES: dict[str, Callable[[Query, World], None]] = {**rules_network.RULES, **rules_machines.RULES}


def check(query: Query, world: World) -> None:
    """Raises `Refused` when EC2 would not do what `query` asks for. A dry run is checked all the same."""
    rules_machines.check_tags(query)
    rule = RULES.get(query.action)
    if rule is not None:
        rule(query, world)
