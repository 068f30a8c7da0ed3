"""The emulator's servers: Azure Resource Manager and its token endpoint over TLS on a loopback address, and
beside it the machines' metadata service."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from deployer.sandbox.addresses import AddressPool
from deployer.sandbox.azure import machine_identity, tls, view
from deployer.sandbox.azure.listener import Listener
from deployer.sandbox.azure.roles import Permission
from deployer.sandbox.azure.routes import Router
from deployer.sandbox.azure.schedules import Clock
from deployer.sandbox.azure.state import Cloud, Subscription
from deployer.sandbox.faults import FaultBook, book
from deployer.sandbox.model import InventoryItem, MachineSpec

log = logging.getLogger(__name__)
_NAMESPACE = uuid.UUID("6b1b3a7e-3f0c-5e0a-9d53-fed59a200001")
MACHINES_METADATA = "169.254.169.254"
"""Where machines that are systems of their own find their metadata service, and beside it (port 443) this server."""

_SCHEDULES_S = 1.0
"""How often machines' daily shutdowns are looked at."""


def _made(*words: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "/".join(words)))


DEFAULT_SUBSCRIPTION = _made("subscription")
DEFAULT_TENANT = _made("tenant")


class ArmServer:
    """The emulated Azure. `on_change` is called after every change, from any thread.

    `home` is a folder for the authority's certificate (`ca_file`), which stays the same over restarts; without one, a
    temporary folder is used and removed at `stop`. `console` gives a machine's serial console by its VM id.
    """

    def __init__(
        self,
        on_change: Callable[[], None] = lambda: None,
        *,
        addresses: AddressPool | None = None,
        home: Path | None = None,
        faults: FaultBook | None = None,
        host: str = "127.0.0.1",
        console: Callable[[str], str] | None = None,
    ) -> None:
        self._temporary = Path(tempfile.mkdtemp(prefix="fedspan-arm-")) if home is None else None
        self._home = home or Path(str(self._temporary))
        pool = addresses or AddressPool("127.250.0.0/22")
        self.cloud = Cloud(on_change, pool, faults or book())
        self._router = Router(self.cloud, console)
        self._host = host
        self._server: Listener | None = None
        self._metadata: Listener | None = None
        self._clock = threading.Thread(target=self._run_schedules, name="arm schedules", daemon=True)
        self.ca_file = self._home / "ca.pem"
        self.add_subscription(DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, name="fedspan sandbox")

    def start(self) -> str:
        """Serves from now on; returns the URL."""
        authority = tls.open_authority(self._home)
        context = tls.server_context(authority, (self._host, MACHINES_METADATA), self._home)
        self._server = Listener(self._host, self._router.answer, context)
        self._metadata = Listener(self._host, lambda request: machine_identity.metadata(self.cloud, request))
        self._server.start()
        self._metadata.start()
        self._clock.start()
        return self.url

    def _run_schedules(self) -> None:
        clock = Clock()
        while not self.cloud.stopping.wait(_SCHEDULES_S):
            try:
                clock.tick(self.cloud)
            except Exception:  # the boundary of the thread: one failure must not be the end of all shutdowns to come
                log.exception("the machines' daily shutdowns")

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the server has not been started")
        return self._server.url

    @property
    def metadata_url(self) -> str:
        """The metadata service's address: a machine's resource ID after it stands for http://169.254.169.254 there."""
        if self._metadata is None:
            raise RuntimeError("the server has not been started")
        return self._metadata.url

    def powered_off(self, machine: str, vm_id: str) -> None:
        """A machine (by its resource ID and its own) has powered itself off: "stopped", and billed as before."""
        with self.cloud.lock:
            record = self.cloud.find(machine)
            if record is not None and (record.inner["vm_id"], record.inner["power"]) == (vm_id, "running"):
                record.inner["power"] = "stopped"
        self.cloud.on_change()

    def stop(self) -> None:
        """Ends the servers, their connections and operations; what existed is forgotten with this object."""
        self.cloud.stopping.set()
        if self._server is not None and self._metadata is not None:
            self._server.stop()
            self._metadata.stop()
            self._clock.join()
            self._server = self._metadata = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> ArmServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- identities --------------------------------------------------------------------------------------------
    def add_subscription(
        self,
        subscription_id: str,
        tenant_id: str | None = None,
        *,
        name: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
    ) -> Subscription:
        """A further subscription; the same one when it is known already.

        Without a tenant it lies in the sandbox's own, and its principal may use it. With a tenant of its own it has a
        principal of its own, and nobody else's token opens it.
        """
        with self.cloud.lock:
            known = self.cloud.subscriptions.get(subscription_id.lower())
            if known is not None:
                return known
            tenant = (tenant_id or DEFAULT_TENANT).lower()
            principal = (tenant,) if tenant == DEFAULT_TENANT else (tenant, subscription_id.lower())
            made = Subscription(
                subscription_id.lower(),
                tenant,
                name or f"sandbox {subscription_id[:8]}",
                client_id or _made("client", *principal),
                client_secret or _made("secret", *principal),
            )
            self.cloud.subscriptions[made.id] = made
            return made

    def environment(self, subscription_id: str | None = None) -> dict[str, str]:
        """What a client's environment has to hold to use a subscription here: the real names, dummy secrets.

        ARM_* is read by the provider, AZURE_* by azure-identity, the CA bundle by every Python client.
        `ARM_ENDPOINT` is the resource manager's URL.
        """
        one = self.cloud.subscriptions[(subscription_id or DEFAULT_SUBSCRIPTION).lower()]
        host = self.url.removeprefix("https://")
        return {
            "ARM_SUBSCRIPTION_ID": one.id,
            "ARM_TENANT_ID": one.tenant_id,
            "ARM_CLIENT_ID": one.client_id,
            "ARM_CLIENT_SECRET": one.client_secret,
            "ARM_METADATA_HOSTNAME": host,
            "ARM_ENVIRONMENT": "fedspan-sandbox",
            "ARM_DISABLE_INSTANCE_DISCOVERY": "true",
            "ARM_ENDPOINT": self.url,
            "AZURE_SUBSCRIPTION_ID": one.id,
            "AZURE_TENANT_ID": one.tenant_id,
            "AZURE_CLIENT_ID": one.client_id,
            "AZURE_CLIENT_SECRET": one.client_secret,
            "AZURE_AUTHORITY_HOST": self.url,
            "REQUESTS_CA_BUNDLE": str(self.ca_file),
            "SSL_CERT_FILE": str(self.ca_file),
        }

    def set_rights(self, subscription_id: str, permission: Permission | None) -> None:
        """From now on all that the subscription's principal may do there by itself; None: everything."""
        with self.cloud.lock:
            self.cloud.rights.pop(subscription_id.lower(), None)
            if permission is not None:
                self.cloud.rights[subscription_id.lower()] = permission

    # -- views -------------------------------------------------------------------------------------------------
    def machines(self) -> list[MachineSpec]:
        return view.machines(self.cloud)

    def inventory(self) -> list[InventoryItem]:
        return view.inventory(self.cloud)
