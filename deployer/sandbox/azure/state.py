"""What exists in the emulated Azure: subscriptions, groups, resources, operations. All of it in memory, one lock."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from deployer.sandbox.addresses import AddressPool
from deployer.sandbox.azure.arm_errors import ArmError, bad_reference, group_not_found
from deployer.sandbox.azure.ids import ResourceId, parse
from deployer.sandbox.azure.roles import Permission
from deployer.sandbox.faults import FaultBook

Body = dict[str, Any]
PROVIDERS = (
    "Microsoft.Authorization",
    "Microsoft.Compute",
    "Microsoft.DevTestLab",
    "Microsoft.Network",
    "Microsoft.Resources",
)
_OPERATIONS_KEPT = 2000


def now() -> str:
    """The time as ARM writes it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True)
class Subscription:
    """A subscription, its tenant, and the one service principal that may use it."""

    id: str
    tenant_id: str
    name: str
    client_id: str
    client_secret: str


@dataclass
class Group:
    """A resource group. `deleting`: its cascade is under way, nothing new may enter."""

    id: ResourceId
    location: str
    tags: dict[str, str]
    managed_by: str | None = None
    deleting: bool = False


@dataclass
class Record:
    """One resource. `body` is what was asked for, canonical and without what the service computes.

    `inner` is what the service knows beside it: allocated addresses, power state, the VM's id, user-data.
    """

    id: ResourceId
    body: Body
    etag: str = field(default_factory=lambda: str(uuid.uuid4()))
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "Updating"
    created: str = field(default_factory=now)
    inner: dict[str, Any] = field(default_factory=dict)
    failure: ArmError | None = None

    @property
    def location(self) -> str:
        return str(self.body.get("location", ""))

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.body.get("tags") or {})

    @property
    def properties(self) -> Body:
        found: Body = self.body.setdefault("properties", {})
        return found

    @property
    def zones(self) -> list[str]:
        return list(self.body.get("zones") or [])

    @property
    def busy(self) -> bool:
        return self.state in ("Updating", "Creating", "Deleting")


@dataclass
class Assignment:
    """A role that a principal has at a scope and beneath it.

    `home` is what lies at the scope, and the assignment goes with it. It counts from `in_force` on (monotonic seconds).
    """

    name: str
    scope: str
    home: Subscription | Group | Record
    role: str
    principal: str
    by: str
    in_force: float
    body: Body
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)

    @property
    def id(self) -> str:
        return f"{self.scope}/providers/Microsoft.Authorization/roleAssignments/{self.name}"


@dataclass
class Operation:
    """A long-running operation, polled by its id."""

    id: str
    subscription: str
    provider: str
    location: str
    started: str = field(default_factory=now)
    done: threading.Event = field(default_factory=threading.Event)
    error: ArmError | None = None
    result: Callable[[], Body] | None = None  # what a poll of Location answers at the end; None: nothing

    @property
    def status(self) -> str:
        return "InProgress" if not self.done.is_set() else ("Failed" if self.error else "Succeeded")


class Cloud:
    """All of the emulated Azure. Whoever reads or writes it holds `lock`; `on_change` is called without it."""

    def __init__(self, on_change: Callable[[], None], addresses: AddressPool, faults: FaultBook) -> None:
        self.lock = threading.RLock()
        self.addresses, self.faults = addresses, faults
        self.on_change = on_change
        self.subscriptions: dict[str, Subscription] = {}
        self.groups: dict[str, Group] = {}
        self.records: dict[str, Record] = {}
        self.assignments: dict[str, Assignment] = {}
        self.rights: dict[str, Permission] = {}  # subscription -> what its principal may do there; all without an entry
        self.operations: dict[str, Operation] = {}
        self.registrations: dict[tuple[str, str], str] = {}
        self.features: dict[tuple[str, str], str] = {}
        self.quotas: dict[tuple[str, str, str], int] = {}
        self.stopping = threading.Event()
        self._signing_key = secrets.token_bytes(32)

    # -- who may do what ---------------------------------------------------------------------------------------
    def new_etag(self) -> str:
        return str(uuid.uuid4())

    def issue_token(self, tenant: str, client: str, audience: str, seconds: int, **more: str) -> str:
        """A signed access token (a JWT) with `more` claims; only this process's key makes and checks it."""
        issued = int(time.time())
        claims = {
            "aud": audience, "iss": f"https://sts.windows.net/{tenant}/", "iat": issued, "nbf": issued - 300,
            "exp": issued + seconds, "appid": client, "tid": tenant,
            "oid": object_id(client), "ver": "1.0", **more,
        }  # fmt: skip
        text = f"{_b64(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{_b64(json.dumps(claims).encode())}"
        return f"{text}.{self._sign(text)}"

    def _sign(self, text: str) -> str:
        return _b64(hmac.new(self._signing_key, text.encode(), hashlib.sha256).digest())

    def claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a token of ours, or `None` for any other text."""
        text, _, signature = token.rpartition(".")
        if not text or not hmac.compare_digest(signature.encode(), self._sign(text).encode()):
            return None
        payload = text.split(".")[1]
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return found

    # -- looking things up -------------------------------------------------------------------------------------
    def group(self, resource: ResourceId) -> Group:
        found = self.groups.get(resource.group_id.lower())
        if found is None:
            raise group_not_found(resource.group)
        return found

    def find(self, resource: ResourceId | str | None) -> Record | None:
        """The record of an ID, in whatever case it is written."""
        if isinstance(resource, str):
            resource = parse(resource)
        return self.records.get(resource.key) if resource is not None else None

    def of_type(self, type_: str) -> Iterator[Record]:
        return (record for record in list(self.records.values()) if record.id.type == type_)

    def children(self, parent: ResourceId, kind: str) -> list[Record]:
        """The child resources of one kind, in the order in which they were made."""
        wanted, prefix = f"{parent.type}/{kind}", parent.key + "/"
        return [r for r in self.records.values() if r.id.type == wanted and r.id.key.startswith(prefix)]

    def reference(self, by: ResourceId, value: Any, path: str, type_: str, location: str | None) -> Record:
        """The record that `by` refers to at `path`. Checks the ID's form, that it exists, is whole, and is near."""
        text = value.get("id") if isinstance(value, dict) else value
        found = parse(text) if isinstance(text, str) else None
        if found is None or found.type.lower() != type_.lower():
            raise ArmError(
                400,
                "LinkedInvalidPropertyId",
                f"Property id '{text or ''}' at path '{path}' is invalid. Expect fully qualified resource Id that start"
                " with '/subscriptions/{subscriptionId}' or '/providers/{resourceProviderNamespace}/'.",
            )
        record = self.find(found)
        if found.subscription.lower() != by.subscription.lower():
            raise bad_reference(str(found), str(by))  # the types here may not reach over subscriptions
        home = self.find(found.parent) if record is not None and not record.location and found.parent else record
        if record is None or home is None or (location is not None and home.location != location):
            raise bad_reference(str(found), str(by))
        if record.busy or record.state == "Failed":
            raise ArmError(
                429,
                "ReferencedResourceNotProvisioned",
                f"Cannot proceed with operation because resource {record.id} used by resource {by} is not in Succeeded"
                f" state. Resource is in {record.state} state.",
                headers={"Retry-After": "1"},
            )
        return record

    def at(self, scope: str) -> Subscription | Group | Record | None:
        """What lies at a scope: a subscription, a group or a resource."""
        parts = scope.strip("/").split("/")
        if len(parts) == 2:
            return self.subscriptions.get(parts[1].lower())
        found = parse(scope)
        if found is None or found.type:
            return self.find(found)
        return self.groups.get(found.key)

    # -- operations --------------------------------------------------------------------------------------------
    def start(
        self,
        subscription: str,
        provider: str,
        location: str,
        seconds: float,
        work: Callable[[], None],
        result: Callable[[], Body] | None = None,
    ) -> Operation:
        """Begins an operation whose `work` is done after `seconds`; at once, before this returns, where that is 0.

        `work` is called with the lock held and says what failed by raising `ArmError`.
        """
        operation = Operation(str(uuid.uuid4()), subscription, provider, location, result=result)
        with self.lock:
            self.operations[operation.id] = operation
            for old in list(self.operations)[:-_OPERATIONS_KEPT]:
                if self.operations[old].done.is_set():
                    del self.operations[old]
        if seconds <= 0:
            self._finish(operation, work)
        else:
            thread = threading.Thread(target=self._later, args=(operation, seconds, work), daemon=True)
            thread.start()
        return operation

    def _later(self, operation: Operation, seconds: float, work: Callable[[], None]) -> None:
        if not self.stopping.wait(seconds):
            self._finish(operation, work)
            self.on_change()

    def _finish(self, operation: Operation, work: Callable[[], None]) -> None:
        with self.lock:
            try:
                work()
            except ArmError as error:
                operation.error = error
            operation.done.set()


def object_id(client: str) -> str:
    """The object ID of a subscription's service principal."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, client))


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
