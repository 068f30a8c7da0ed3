"""From a request to an answer: who asks, what for, and every rule that ARM keeps before a provider sees a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deployer.sandbox.azure import authorization, catalogue, groups, identity, resource_routes, rights
from deployer.sandbox.azure import subscription_routes as above
from deployer.sandbox.azure.arm_errors import ArmError, group_not_found
from deployer.sandbox.azure.comp_machines import MACHINE
from deployer.sandbox.azure.gate import Gate, check_version
from deployer.sandbox.azure.ids import ResourceId, parse
from deployer.sandbox.azure.registry import KINDS
from deployer.sandbox.azure.state import Cloud, Operation, Subscription
from deployer.sandbox.azure.web import Answer, Request

HELD_SECONDS = 20.0  # the longest delay of an answer: clients give up after 30 s
POLL_SECONDS = 1.0  # how long a poll is held while nothing happens
_CONSOLE = "[    0.000000] Linux version 6.8.0-azure\ncloud-init finished\n"


class Router:
    """Answers requests from one `Cloud`. `console` gives the serial console's text of a machine by its VM id."""

    def __init__(self, cloud: Cloud, console: Callable[[str], str] | None = None) -> None:
        self.cloud = cloud
        self.gate = Gate(cloud)
        self.console = console or (lambda _vm_id: _CONSOLE)

    def answer(self, request: Request) -> Answer:
        """The answer to any request; refusals included, other exceptions not."""
        changes = request.method not in ("GET", "HEAD")
        try:
            found = self._open(request) or self._closed(request)
        except ArmError as error:
            found = Answer(error.status, error.body(), {"x-ms-failure-cause": "gateway", **error.headers})
            changes = False
        if changes:
            self.cloud.on_change()
        if found.hold_s > 0:
            self.cloud.stopping.wait(found.hold_s)
        return found

    # -- without a token ---------------------------------------------------------------------------------------
    def _open(self, request: Request) -> Answer | None:
        parts = [part.lower() for part in request.parts]
        if parts == ["metadata", "endpoints"]:
            return identity.endpoints(request)
        if parts[:1] == ["bootdiagnostics"] and len(parts) == 3:
            return self._boot_diagnostics(parts[1], parts[2])
        if parts[:1] in (["subscriptions"], ["tenants"], ["providers"]):
            return None
        with self.cloud.lock:
            return identity.discovery(request) or identity.token(self.cloud, request)

    def _boot_diagnostics(self, vm_id: str, name: str) -> Answer:
        with self.cloud.lock:
            known = any(record.inner.get("vm_id") == vm_id for record in self.cloud.records.values())
        if not known or name != "serial.log":
            raise ArmError(404, "BlobNotFound", "The specified blob does not exist.")
        return Answer(200, self.console(vm_id), {"Content-Type": "text/plain; charset=utf-8"})

    # -- with one ----------------------------------------------------------------------------------------------
    def _closed(self, request: Request) -> Answer:
        claims = self.gate.claims(request)
        check_version(request)
        parts = request.parts
        if not parts or parts[0].lower() not in ("subscriptions", "tenants"):
            raise _no_route(request)
        if parts[0].lower() == "tenants":
            return above.tenants(self.cloud, claims["tid"])
        if len(parts) == 1:
            with self.cloud.lock:
                mine = [one for one in self.cloud.subscriptions.values() if rights.sees(self.cloud, one, claims)]
                return Answer(200, {"value": [above.show_subscription(one) for one in mine]})
        subscription = self.gate.subscription(parts[1], claims, request)
        self.gate.authorize(subscription, claims, request, poll=_polls(parts))
        if (operation := self._operation(parts)) is not None:
            return self._poll(operation, "operationresults" in [part.lower() for part in parts])
        with self.cloud.lock:
            if (where := authorization.split(parts)) is not None:
                return authorization.answer(self.cloud, subscription, claims, where, request)
            return self._subscribed(subscription, parts, request)

    # -- operations --------------------------------------------------------------------------------------------
    def _operation(self, parts: list[str]) -> Operation | None:
        if not _polls(parts):
            return None
        with self.cloud.lock:
            found = self.cloud.operations.get(parts[-1].lower())
        if found is None or found.subscription.lower() != parts[1].lower():
            raise ArmError(404, "NotFound", f"The operation '{parts[-1]}' was not found.")
        return found

    def _poll(self, operation: Operation, result: bool) -> Answer:
        """A poll, held for a moment: it is answered as soon as something happened."""
        done = operation.done.wait(POLL_SECONDS)
        waiting = {"Retry-After": resource_routes.POLL_AFTER}
        if result:
            if not done:
                return Answer(202, None, waiting)
            if operation.error:
                raise operation.error
            with self.cloud.lock:
                return Answer(200, operation.result() if operation.result else None)
        body: dict[str, Any] = {"status": operation.status, "name": operation.id, "startTime": operation.started}
        if operation.error:
            body["error"] = operation.error.body()["error"]
        return Answer(200, body, {} if done else waiting)

    # -- within a subscription ---------------------------------------------------------------------------------
    def _subscribed(self, one: Subscription, parts: list[str], request: Request) -> Answer:
        cloud, rest = self.cloud, parts[2:]
        head = rest[0].lower() if rest else ""
        if not rest:
            return Answer(200, above.show_subscription(one))
        if head == "locations":
            return above.locations(one)
        if head == "resources":
            return above.resource_list(cloud, one, None, request)
        if head == "providers":
            return self._provided(one, rest[1:], request)
        if head != "resourcegroups":
            raise _no_route(request)
        if len(rest) == 1:
            return above.group_list(cloud, one, request)
        if len(rest) == 2:
            return self._group(ResourceId(one.id, rest[1], "", (rest[1],)), request)
        if len(rest) == 3 and rest[2].lower() == "resources":
            if f"/subscriptions/{one.id}/resourcegroups/{rest[1]}".lower() not in cloud.groups:
                raise group_not_found(rest[1])
            return above.resource_list(cloud, one, rest[1], request)
        return self._resource(one, parts, request)

    def _provided(self, one: Subscription, rest: list[str], request: Request) -> Answer:
        """`/subscriptions/S/providers/...`: providers themselves, what they say about regions, and lists."""
        cloud, words = self.cloud, [part.lower() for part in rest]
        if words[:2] == ["microsoft.features", "providers"]:
            return above.features(cloud, one, rest[1:], request)
        if len(rest) <= 1 or (len(rest) == 2 and words[1] in ("register", "unregister")):
            return above.providers(cloud, one, rest, request)
        namespace = above.canonical_provider(rest[0])
        if words[1] == "skus" and namespace == "Microsoft.Compute":
            return above.skus(cloud, request)
        if words[1] == "locations" and len(rest) >= 4:
            place = catalogue.region(rest[2])
            if place is None:
                raise ArmError(400, "InvalidLocation", f"The location '{rest[2]}' is not known.")
            if words[3] == "vmsizes":
                return above.sizes()
            if words[3] == "usages":
                compute = namespace == "Microsoft.Compute"
                return above.compute_usages(cloud, one, place) if compute else above.network_usages(cloud, one, place)
            if words[3] == "publishers":
                return above.images(one, place, rest[3:])
        type_ = _type(f"{namespace}/{rest[1]}", request)
        if len(rest) == 2 and request.method == "GET":
            return resource_routes.listed(cloud, one.id, None, type_)
        raise _no_route(request)

    def _group(self, resource: ResourceId, request: Request) -> Answer:
        cloud, method = self.cloud, request.method
        if method == "PUT":
            group, new = groups.put(cloud, resource, request.json())
            # Making a group is no long-running operation: a delay that is asked for holds back the answer itself.
            delay = cloud.faults.delay(*groups.FAULT_NAMES) if new else 0.0
            return Answer(201 if new else 200, groups.show(group), hold_s=min(delay, HELD_SECONDS))
        if method == "HEAD":
            return Answer(204 if resource.key in cloud.groups else 404)
        group = cloud.group(resource)
        if method == "GET":
            return Answer(200, groups.show(group))
        if method == "PATCH":
            body = {"location": group.location, "tags": group.tags, **request.json()}
            return Answer(200, groups.show(groups.put(cloud, resource, body)[0]))
        if method == "DELETE":
            if group.deleting:
                raise groups.being_deleted(group)
            operation = groups.delete(cloud, group)
            return Answer(202, None, resource_routes.headers(request, operation))
        raise _no_route(request)

    def _resource(self, one: Subscription, parts: list[str], request: Request) -> Answer:
        cloud, method = self.cloud, request.method
        if len(parts) < 6 or parts[4].lower() != "providers":
            raise _no_route(request)
        namespace = above.canonical_provider(parts[5])
        if above.registration(cloud, one.id, namespace) != "Registered":
            raise ArmError(
                409,
                "MissingSubscriptionRegistration",
                f"The subscription is not registered to use namespace '{namespace}'. See https://aka.ms/rps-not-found"
                " for how to register subscriptions.",
                details=[
                    {
                        "code": "MissingSubscriptionRegistration",
                        "target": namespace,
                        "message": f"The subscription is not registered to use namespace '{namespace}'.",
                    }
                ],
            )
        steps = parts[6:]
        if len(steps) == 1:
            return resource_routes.listed(cloud, one.id, parts[3], _type(f"{namespace}/{steps[0]}", request))
        if len(steps) % 2:
            return self._beneath(one, parts, request)
        resource = parse(request.path)
        if resource is None or resource.type not in KINDS:
            raise _unknown_type(namespace, "/".join(steps[::2]), request)
        verbs: dict[str, Callable[[Cloud, ResourceId, Request], Answer]] = {
            "GET": resource_routes.get,
            "PUT": resource_routes.put,
            "PATCH": resource_routes.patch,
            "DELETE": resource_routes.delete,
        }
        if method not in verbs:
            raise _no_route(request)
        return verbs[method](cloud, resource, request)

    def _beneath(self, one: Subscription, parts: list[str], request: Request) -> Answer:
        """A path with one step more than a resource: a list of children, an action, or a machine's view."""
        parent, last = parse("/" + "/".join(parts[:-1])), parts[-1]
        if parent is None or parent.type not in KINDS:
            raise _unknown_type(parts[5], "/".join(parts[6::2]), request)
        if request.method == "POST":
            return resource_routes.act(self.cloud, parent, last, request)
        if parent.type.lower() == "microsoft.compute/virtualmachines" and last.lower() in ("instanceview", "vmsizes"):
            record = resource_routes.find(self.cloud, parent)
            if last.lower() == "vmsizes":
                return above.sizes()
            return Answer(200, MACHINE.instance_view(self.cloud, record))
        child = next((name for name in KINDS if name.lower() == f"{parent.type}/{last}".lower()), None)
        if child is None:
            raise _unknown_type(parts[5], "/".join(parts[6::2]), request)
        return resource_routes.children(self.cloud, parent, child.rsplit("/", 1)[1])


def _polls(parts: list[str]) -> bool:
    return len(parts) > 3 and parts[-2].lower() in ("operations", "operationresults")


def _type(text: str, request: Request) -> str:
    found = next((name for name in KINDS if name.lower() == text.lower()), None)
    if found is None:
        namespace, _, kind = text.partition("/")
        raise _unknown_type(namespace, kind, request)
    return found


def _unknown_type(namespace: str, kind: str, request: Request) -> ArmError:
    version = request.query.get("api-version", "")
    return ArmError(
        404,
        "InvalidResourceType",
        f"The resource type '{kind}' could not be found in the namespace '{namespace}' for api version '{version}'.",
    )


def _no_route(request: Request) -> ArmError:
    return ArmError(
        404, "NotFound", f"No HTTP resource was found that matches the request {request.method} '{request.path}'."
    )
