"""A machine's own identity: given and taken by its body, and its tokens from the metadata service.

The metadata service has one address on every real machine; here it is a path for each: the machine's resource ID.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer.sandbox.azure.arm_errors import invalid_parameter
from deployer.sandbox.azure.identity import PUBLIC_AUDIENCES
from deployer.sandbox.azure.ids import MACHINES, parse
from deployer.sandbox.azure.state import Body, Cloud, Record
from deployer.sandbox.azure.web import Answer, Request

TOKEN_PATH = "/metadata/identity/oauth2/token"  # noqa: S105 - no secret
_TOKEN_SECONDS = 86400
_VERSIONS = ("2018-02-01", "2019-08-01", "2019-11-01", "2020-06-01", "2021-02-01")


@dataclass(frozen=True)
class Principal:
    """A system-assigned identity, new whenever a machine is given one."""

    object_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_id: str = field(default_factory=lambda: str(uuid.uuid4()))


def wanted(body: Body, old: Record | None) -> None:
    """Checks the identity that a machine's body asks for. A body that says nothing of it leaves it as it is."""
    given = body.get("identity")
    if given is None:
        if old is not None and "identity" in old.body:
            body["identity"] = dict(old.body["identity"])
        return
    kind = given.get("type")
    if kind == "None":
        del body["identity"]
        return
    if kind != "SystemAssigned" or given.get("userAssignedIdentities"):
        raise invalid_parameter(
            "identity.type", f"The sandbox gives machines a SystemAssigned identity or None, not '{kind}'."
        )
    body["identity"] = {"type": kind}


def settle(record: Record) -> None:
    """Gives the machine the identity that its body has, or takes it away. One that stands stays the same."""
    if "identity" not in record.body:
        record.inner.pop("identity", None)
    elif "identity" not in record.inner:
        record.inner["identity"] = Principal()


def show(cloud: Cloud, record: Record) -> Body:
    """What a machine shows of its identity: nothing where it has none."""
    own = record.inner.get("identity")
    if own is None:
        return {}
    tenant = cloud.subscriptions[record.id.subscription.lower()].tenant_id
    return {"identity": {"type": "SystemAssigned", "principalId": own.object_id, "tenantId": tenant}}


def owner(cloud: Cloud, object_id: str) -> Record | None:
    """The machine whose identity that is."""
    return next(
        (one for one in cloud.of_type(MACHINES) if (own := one.inner.get("identity")) and own.object_id == object_id),
        None,
    )


# -- the metadata service ----------------------------------------------------------------------------------------
def metadata(cloud: Cloud, request: Request) -> Answer:
    """The answer to a machine's request: only the identity endpoint is served."""
    machine, found, rest = request.path.rpartition(TOKEN_PATH)
    resource = parse(machine) if found and not rest else None
    with cloud.lock:
        record = cloud.find(resource)
        if record is None or record.id.type != MACHINES or record.inner["power"] != "running":
            return Answer(404, {"error": "Not found"})
        if request.method != "GET":
            return Answer(405, {"error": "Method not allowed"})
        return _refused(request) or _token(cloud, record, request)


def _refused(request: Request) -> Answer | None:
    if request.headers.get("metadata", "").lower() != "true":
        return _invalid("Required metadata header not specified")
    if "x-forwarded-for" in request.headers:
        # A request that came by a proxy may be somebody else's.
        return _invalid("X-Forwarded-For header is not allowed")
    version = request.query.get("api-version")
    if not version:
        return _invalid("Required query variable 'api-version' is missing")
    if version not in _VERSIONS:
        return _invalid(f"The api-version '{version}' is not supported")
    if not request.query.get("resource"):
        return _invalid("Required audience parameter not specified")
    return None


def _token(cloud: Cloud, record: Record, request: Request) -> Answer:
    own, asked = record.inner.get("identity"), request.query["resource"]
    if own is None or not _names(own, request.query):
        return _invalid("Identity not found")
    tenant = cloud.subscriptions[record.id.subscription.lower()].tenant_id
    if asked.rstrip("/") not in (*PUBLIC_AUDIENCES, request.base):
        text = f"AADSTS500011: The resource principal named {asked} was not found in the tenant named {tenant}."
        return Answer(400, {"error": "invalid_resource", "error_description": text})
    now = int(time.time())
    claims = {"oid": own.object_id, "idtyp": "app", "xms_mirid": str(record.id)}
    issued = cloud.issue_token(tenant, own.client_id, asked, _TOKEN_SECONDS, **claims)
    body: dict[str, Any] = {
        "access_token": issued,
        "client_id": own.client_id,
        "expires_in": str(_TOKEN_SECONDS),
        "expires_on": str(now + _TOKEN_SECONDS),
        "ext_expires_in": str(_TOKEN_SECONDS),
        "not_before": str(now - 300),
        "resource": asked,
        "token_type": "Bearer",
    }
    return Answer(200, body)


def _names(own: Principal, query: Mapping[str, str]) -> bool:
    """Whether the request names this identity, or none."""
    known = {"client_id": own.client_id, "object_id": own.object_id}
    return "msi_res_id" not in query and all(query.get(name, value) == value for name, value in known.items())


def _invalid(text: str) -> Answer:
    return Answer(400, {"error": "invalid_request", "error_description": text})
