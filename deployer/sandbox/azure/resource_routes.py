"""PUT, PATCH, GET, DELETE, lists and actions of resources, by resource ID; long-running where ARM's are."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

from deployer.sandbox.azure import groups
from deployer.sandbox.azure.arm_errors import ArmError, resource_not_found
from deployer.sandbox.azure.comp_checks import merged
from deployer.sandbox.azure.comp_machines import MACHINE
from deployer.sandbox.azure.ids import MACHINES, ResourceId
from deployer.sandbox.azure.kinds import ResourceKind, check_place, check_tags
from deployer.sandbox.azure.registry import KINDS
from deployer.sandbox.azure.schema import Kind
from deployer.sandbox.azure.schema import misfit as find_misfit
from deployer.sandbox.azure.state import Body, Cloud, Operation, Record
from deployer.sandbox.azure.web import Answer, Request

POWER_ACTIONS = {name.lower(): name for name in ("start", "restart", "redeploy", "powerOff", "deallocate")}
_CODE = re.compile(r"([A-Z][A-Za-z]+): (.+)\Z", re.DOTALL)
POLL_AFTER = "0"  # polls are answered when something happened or after a second: clients need no pause of their own


def headers(request: Request, operation: Operation, *, location: bool = False) -> dict[str, str]:
    """Where to poll an operation."""
    version = request.query.get("api-version", "")
    root = f"{request.base}/subscriptions/{operation.subscription}"
    if not operation.provider:
        url = f"{root}/operationresults/{operation.id}?api-version={version}"
        return {"Location": url, "Retry-After": POLL_AFTER}
    place = f"{root}/providers/{operation.provider}/locations/{operation.location}"
    found = {
        "Azure-AsyncOperation": f"{place}/operations/{operation.id}?api-version={version}",
        "Retry-After": POLL_AFTER,
    }
    if location:
        found["Location"] = f"{place}/operationResults/{operation.id}?api-version={version}"
    return found


def find(cloud: Cloud, resource: ResourceId) -> Record:
    """The record, or the 404 that ARM gives: of the group, of the parent, of the resource."""
    cloud.group(resource)
    record = cloud.find(resource)
    if record is not None:
        return record
    if resource.parent is None:
        raise resource_not_found(resource.type, resource.name, resource.group)
    top = ResourceId(resource.subscription, resource.group, "/".join(resource.type.split("/")[:2]), resource.names[:1])
    if cloud.find(top) is None:
        raise resource_not_found(top.type, top.name, top.group)
    raise ArmError(404, "NotFound", f"Resource {resource} not found.")


def get(cloud: Cloud, resource: ResourceId, request: Request) -> Answer:
    record, kind = find(cloud, resource), KINDS[resource.type]
    body = kind.show(cloud, record)
    if resource.type == MACHINES and "instanceview" in request.query.get("$expand", "").lower():
        body["properties"]["instanceView"] = MACHINE.instance_view(cloud, record)
    return Answer(200, body, {"ETag": f'W/"{record.etag}"'})


def _conditions(request: Request, resource: ResourceId, old: Record | None) -> None:
    wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
    tag = f'W/"{old.etag}"' if old else None
    if wanted and (old is None or (wanted != "*" and wanted.strip('W/"') != (old.etag if old else None))):
        raise ArmError(
            412,
            "PreconditionFailed",
            f"The condition '{wanted}' in If-Match is not met by resource {resource}: its etag is {tag or 'none'}.",
        )
    if unwanted == "*" and old is not None:
        raise ArmError(
            412, "PreconditionFailed", f"The condition '*' in If-None-Match is not met: resource {resource} exists."
        )


def _not_busy(old: Record) -> None:
    if not old.busy:
        return
    if old.id.namespace == "Microsoft.Compute":
        raise ArmError(
            409,
            "OperationNotAllowed",
            f"Operation 'update' is not allowed on {old.id} since another operation is in progress.",
            headers={"Retry-After": "1"},
        )
    raise ArmError(
        429,
        "AnotherOperationInProgress",
        f"Another operation on this or dependent resource is in progress. Resource {old.id} is in {old.state} state.",
        headers={"Retry-After": "1"},
    )


def put(cloud: Cloud, resource: ResourceId, request: Request) -> Answer:
    kind = KINDS[resource.type]
    group = cloud.group(resource)
    if group.deleting:
        raise groups.being_deleted(group)
    parent = resource.parent
    if parent is not None and cloud.find(parent) is None:
        kinds = "/".join(resource.type.split("/")[1:])
        raise ArmError(
            404,
            "ParentResourceNotFound",
            f"Failed to perform 'write' on resource(s) of type '{kinds}', because the parent resource '{parent}' could"
            " not be found.",
        )
    kind.check_name(resource)
    return _write(cloud, kind, resource, request, request.json())


def patch(cloud: Cloud, resource: ResourceId, request: Request) -> Answer:
    kind, old, body = KINDS[resource.type], find(cloud, resource), request.json()
    shape = Kind("object", model=kind.patch_model)
    if wrong := find_misfit(kind.space, shape, body):
        raise kind.refuse_body(wrong)
    if kind.patches:
        return _write(cloud, kind, resource, request, merged(copy.deepcopy(old.body), body))
    check_tags(body.get("tags"))
    if not kind.tracked or set(body) - {"tags"}:
        raise ArmError(400, "InvalidRequestFormat", "A PATCH of this resource takes tags only.")
    old.body["tags"] = dict(body.get("tags") or {})
    old.etag = cloud.new_etag()
    return Answer(200, kind.show(cloud, old))


def _write(cloud: Cloud, kind: ResourceKind, resource: ResourceId, request: Request, given: Body) -> Answer:
    old = cloud.find(resource)
    if given.get("id") and str(given["id"]).lower() != resource.key:
        raise ArmError(
            400,
            "InvalidRequestContent" if kind.space == "compute" else "InvalidRequestFormat",
            f"The ID '{given['id']}' in the request's body does not match the resource '{resource}' of its path.",
        )
    body = kind.fit(given)
    if kind.tracked:
        check_tags(body.get("tags"))
        check_place(kind, resource, body, old)
    _conditions(request, resource, old)
    if old is not None:
        _not_busy(old)
    record = kind.apply(cloud, resource, body, old)
    record.etag = cloud.new_etag()
    record.state, record.failure = (kind.creating if old is None else "Updating"), None
    names = kind.fault_names()
    seconds, message = cloud.faults.delay(*names), cloud.faults.failure(*names)
    started = kind.show(cloud, record)  # as it is while the operation runs
    operation = cloud.start(
        resource.subscription,
        kind.namespace,
        record.location or (cloud.group(resource).location),
        seconds,
        _finisher(cloud, kind, record, message),
        lambda: kind.show(cloud, record),
    )
    status = kind.accepted if old is None else kind.updated
    return Answer(status, started, headers(request, operation, location=status == 202))


def _finisher(cloud: Cloud, kind: ResourceKind, record: Record, message: str | None) -> Callable[[], None]:
    def work() -> None:
        if cloud.find(record.id) is not record or record.state == "Deleting":
            raise ArmError(409, "OperationPreempted", "The operation has been preempted by a more recent operation.")
        try:
            if message:
                code, text = found.groups() if (found := _CODE.match(message)) else ("InternalExecutionError", message)
                raise ArmError(500, code, text)
            kind.settled(cloud, record)
        except ArmError as error:
            record.state, record.failure = "Failed", error
            raise
        record.state = "Succeeded"

    return work


def delete(cloud: Cloud, resource: ResourceId, request: Request) -> Answer:
    group = cloud.group(resource)
    kind, record = KINDS[resource.type], cloud.find(resource)
    if record is None:
        return Answer(204)
    _conditions(request, resource, record)
    # A machine or a disk can be deleted while it is still being made: the earlier operation gives way.
    if record.state != "Deleting" and kind.namespace != "Microsoft.Compute":
        _not_busy(record)
    kind.check_delete(cloud, record)
    before, record.state = record.state, "Deleting"

    def work() -> None:
        if cloud.find(resource) is not record:
            return
        try:
            kind.check_delete(cloud, record)
        except ArmError:
            record.state = before if before != "Deleting" else "Succeeded"
            raise
        kind.remove(cloud, record)

    seconds = cloud.faults.delay(*kind.fault_names())
    place = record.location or group.location
    operation = cloud.start(resource.subscription, kind.namespace, place, seconds, work)
    return Answer(202, None, headers(request, operation, location=True))


def act(cloud: Cloud, resource: ResourceId, action: str, request: Request) -> Answer:
    """POST: a machine's power actions and its boot diagnostics."""
    record = find(cloud, resource)
    name = action.lower()
    if resource.type != MACHINES:
        raise ArmError(404, "NotFound", f"The action '{action}' is not known for {resource.type}.")
    if name == "retrievebootdiagnosticsdata":
        if not (record.properties.get("diagnosticsProfile", {}).get("bootDiagnostics", {}).get("enabled")):
            raise ArmError(409, "OperationNotAllowed", "Boot diagnostics is not enabled for the virtual machine.")
        url = f"{request.base}/bootdiagnostics/{record.inner['vm_id']}"
        body = {"consoleScreenshotBlobUri": f"{url}/screenshot.bmp", "serialConsoleLogBlobUri": f"{url}/serial.log"}
        return Answer(200, body)
    if name == "simulateeviction":
        MACHINE.evict(cloud, record)
        return Answer(204)
    if name not in POWER_ACTIONS:
        raise ArmError(404, "NotFound", f"The action '{action}' is not known for virtual machines.")
    _not_busy(record)
    before, record.state = record.state, "Updating"

    def work() -> None:
        try:
            MACHINE.act(cloud, record, POWER_ACTIONS[name])
        except ArmError:
            record.state = before
            raise
        record.state, record.failure = "Succeeded", None

    seconds = cloud.faults.delay(f"{MACHINES}/{POWER_ACTIONS[name]}")
    operation = cloud.start(resource.subscription, "Microsoft.Compute", record.location, seconds, work)
    return Answer(202, None, headers(request, operation, location=True))


def listed(cloud: Cloud, subscription: str, group: str | None, type_: str) -> Answer:
    """All resources of a type, of a subscription or of one group."""
    kind = KINDS[type_]
    if group is not None:
        cloud.group(ResourceId(subscription, group, "", (group,)))
    found = [
        kind.show(cloud, record)
        for record in cloud.of_type(type_)
        if record.id.subscription.lower() == subscription.lower()
        and (group is None or record.id.group.lower() == group.lower())
    ]
    return Answer(200, {"value": found})


def children(cloud: Cloud, parent: ResourceId, kind_name: str) -> Answer:
    """All child resources of one kind (subnets of a network, rules of a group, extensions of a machine)."""
    find(cloud, parent)
    kind = KINDS[f"{parent.type}/{kind_name}"]
    return Answer(200, {"value": [kind.show(cloud, record) for record in cloud.children(parent, kind_name)]})
