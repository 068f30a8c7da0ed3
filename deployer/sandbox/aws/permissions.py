"""IAM in the emulated AWS: with a policy for an account, only what it allows is done; without one, everything.

Of IAM's language as much as fedspan's own policies use: Allow, actions and resources with wildcards, StringEquals. A
call is allowed when each resource that it names is, by its own tags; a call that tags what it makes needs
`ec2:CreateTags` as a part of it too, which moto by itself would let pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from deployer.sandbox.aws.query import Query, Refused
from deployer.sandbox.aws.world import World

_ID = re.compile(r"(?:i|vol|eni|sg|sgr|subnet|vpc|igw|rtb|rtbassoc|eipalloc|eipassoc|key)-[0-9a-f]{8,17}\Z")
_KEYS = ("aws:RequestedRegion", "ec2:CreateAction", "iam:AWSServiceName")
_policies: dict[str, list[dict[str, Any]]] = {}


def set_policy(account: str, document: Mapping[str, Any] | None) -> None:
    """From now on an account's only rights; None: all. Raises ValueError for what this emulation does not know."""
    if document is None:
        _policies.pop(account, None)
        return
    statements = list(document["Statement"])
    for statement in statements:
        if statement.get("Effect") != "Allow" or set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}:
            raise ValueError(f"the sandbox knows statements that allow, with actions and resources: {statement}")
        if all(action.startswith("kms:") for action in _listed(statement["Action"])):
            continue  # there is no key service here that could be asked
        for operator, keys in statement.get("Condition", {}).items():
            strange = [key for key in keys if key not in _KEYS and not key.startswith("aws:ResourceTag/")]
            if operator != "StringEquals" or strange:
                raise ValueError(f"the sandbox does not know the condition {operator} {', '.join(keys)}")
    _policies[account] = statements


def forget() -> None:
    """No account has a policy any more."""
    _policies.clear()


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def allowed(account: str, action: str, context: Mapping[str, str], resource: str = "*") -> bool:
    """Whether one action on one resource is; `context` are the condition keys that the call has."""
    statements = _policies.get(account)
    return statements is None or any(_matches(one, action, context, resource) for one in statements)


def _matches(statement: Mapping[str, Any], action: str, context: Mapping[str, str], resource: str) -> bool:
    if not any(fnmatchcase(action.lower(), pattern.lower()) for pattern in _listed(statement["Action"])):
        return False
    if resource != "*" and not any(fnmatchcase(resource, pattern) for pattern in _listed(statement["Resource"])):
        return False
    wanted = statement.get("Condition", {}).get("StringEquals", {})
    return all(context.get(key) in _listed(values) for key, values in wanted.items())


def check(query: Query, world: World) -> None:
    """Refuses an EC2 call that the account's policy does not allow."""
    if query.account not in _policies:
        return
    base = {"aws:RequestedRegion": query.region}
    action = f"ec2:{query.action}"
    for tags in _tags_of(query, world) or [{}]:
        context = {**base, **{f"aws:ResourceTag/{key}": value for key, value in tags.items()}}
        if not allowed(query.account, action, context):
            raise _denied(query, action)
    if any(key.startswith("TagSpecification.") and ".Tag." in key for key in query.params):
        context = {**base, "ec2:CreateAction": query.action}
        if not allowed(query.account, "ec2:CreateTags", context):
            raise _denied(query, "ec2:CreateTags")


def _tags_of(query: Query, world: World) -> list[dict[str, str]]:
    """The tags of each resource that the call names."""
    ids = {value for key, value in query.params.items() if _ID.match(value) and "Filter" not in key}
    if query.action == "DeleteKeyPair" and (name := query.get("KeyName")) in world.ec2.key_pairs:
        ids.add(world.ec2.key_pairs[name].id)
    return [dict(world.ec2.tags.get(_owner(id, world), {})) for id in sorted(ids)]


def _owner(id: str, world: World) -> str:
    """Associations have no tags: those of their table or address count."""
    if id.startswith("rtbassoc-"):
        return next((name for name, table in world.ec2.route_tables.items() if id in table._associations), id)
    if id.startswith("eipassoc-"):
        return next((one.allocation_id for one in world.ec2.addresses if one.association_id == id), id)
    return id


def check_json(account: str, action: str, region: str, resources: Iterable[str] = ("*",)) -> dict[str, str] | None:
    """The refusal of a call to another service (SSM, Service Quotas), or None when it is allowed."""
    if all(allowed(account, action, {"aws:RequestedRegion": region}, one) for one in resources):
        return None
    return {"__type": "AccessDeniedException", "message": _words(account, action)}


def _denied(query: Query, action: str) -> Refused:
    return Refused("UnauthorizedOperation", _words(query.account, action), 403)


def _words(account: str, action: str) -> str:
    return (
        f"You are not authorized to perform this operation. User: arn:aws:iam::{account}:user/sandbox is not authorized"
        f" to perform: {action} because no identity-based policy allows the {action} action"
    )
