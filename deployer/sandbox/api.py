"""What the daemon answers to whom its control lets in: paths, and the JSON for each."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from deployer.sandbox import network
from deployer.sandbox.aws import accounts, permissions, quotas
from deployer.sandbox.control import Refusal, Routes
from deployer.sandbox.faults import Faults
from deployer.sandbox.machines import tree

if TYPE_CHECKING:
    from deployer.sandbox.daemon import Daemon


def routes(daemon: Daemon) -> Routes:
    """All that `Control` serves for a daemon."""
    return {
        ("GET", "/status"): lambda _, __: status(daemon),
        ("GET", "/machines"): lambda _, __: daemon.driver.machines(),
        ("POST", "/settle"): lambda _, body: {"settled": daemon.settle(float(body["seconds"]))},
        ("GET", "/inventory"): lambda _, __: [{**vars(i), "tags": dict(i.tags)} for i in daemon.inventory()],
        ("GET", "/faults"): lambda _, __: daemon.faults.read().to_json(),
        ("PUT", "/faults"): lambda _, body: _set_faults(daemon, body),
        ("POST", "/leases"): lambda _, body: _lease(daemon, body),
        ("DELETE", "/leases/(?P<id>[0-9a-f]+)"): lambda match, _: {"released": daemon.plugins.release(match["id"])},
        ("GET", "/profiles"): lambda _, __: {
            name: vars(accounts.credentials(account)) for name, account in accounts.PROFILES.items()
        },
        ("POST", "/profiles"): lambda _, body: _register_profile(daemon, body),
        ("POST", "/subscriptions"): lambda _, body: _subscription(daemon, str(body["subscription"])),
        ("POST", "/quotas"): lambda _, body: _set_quota(daemon, body),
        ("POST", "/policies"): lambda _, body: _set_policy(body),
        ("POST", "/roles"): lambda _, body: _set_role(daemon, body),
        ("POST", "/on-premises"): lambda _, body: vars(daemon.world.exit(str(body["world_address"]))),
        ("POST", "/hosts"): lambda _, body: _host(daemon, body),
        ("DELETE", "/hosts/(?P<name>[a-z0-9-]+)"): lambda match, _: _remove_host(daemon, match["name"]),
        ("POST", "/stop"): lambda _, __: _stop_soon(daemon),
    }


def status(daemon: Daemon) -> dict[str, Any]:
    """What `fedspan sandbox status` shows."""
    return {
        "realm_id": daemon.realm_id,
        "version": daemon.version,
        "pid": os.getpid(),
        "uptime_s": round(time.time() - daemon.began, 1),
        "home": str(daemon.home),
        "aws": daemon.aws_url,
        "azure": daemon.azure_url,
        "driver": daemon.kind.name,
        "addresses": str(daemon.public.network),
        "ssh_port": daemon.ssh_port,
        "world": daemon.world.map(),
        "exits": [vars(exit) for exit in daemon.world.exits()],
        "leases": daemon.plugins.describe(),
        "machines": daemon.driver.machines(),
        "resources": len(daemon.inventory()),
        "faults": daemon.faults.read().to_json(),
    }


def _set_faults(daemon: Daemon, body: Any) -> dict[str, Any]:
    daemon.faults.write(Faults.from_json(body))
    daemon.changed()  # a machine's link follows at once
    return daemon.faults.read().to_json()


def _lease(daemon: Daemon, body: Any) -> dict[str, str]:
    pid, started = int(body["pid"]), body.get("started")
    if not tree.alive(pid, started):
        raise Refusal(409, f"process {pid} is not alive: nobody to lease plugins to")
    id, providers = daemon.plugins.lease(pid, started)
    return {"id": id, "providers": providers}


def _register_profile(daemon: Daemon, body: Any) -> dict[str, str]:
    account = accounts.register_profile(str(body["name"]), str(body["account"]))
    daemon.write_profiles()
    return {"account": account}


def _subscription(daemon: Daemon, subscription: str) -> dict[str, str]:
    daemon.azure.add_subscription(subscription)
    return dict(daemon.azure.environment(subscription))


def _set_quota(daemon: Daemon, body: Any) -> dict[str, float]:
    """A quota of an account (AWS: the quota's code) or of a subscription (Azure: the usage's name) in a region."""
    owner, region, name, value = (body[key] for key in ("owner", "region", "name", "value"))
    if body["cloud"] == "aws":
        quotas.set_quota(str(owner), str(region), str(name), float(value))
    else:
        daemon.azure.cloud.quotas[str(owner), str(region), str(name)] = int(value)
    return {"value": value}


def _set_policy(body: Any) -> dict[str, str]:
    """From now on an AWS account's only rights (`policy` null: all)."""
    permissions.set_policy(str(body["account"]), body["policy"])
    return {"account": str(body["account"])}


def _set_role(daemon: Daemon, body: Any) -> dict[str, str]:
    """From now on a custom role is all that an Azure subscription's principal has (`role` null: everything)."""
    from deployer.sandbox.azure.roles import permission_of

    role = body["role"]
    daemon.azure.set_rights(str(body["subscription"]), None if role is None else permission_of(role))
    return {"subscription": str(body["subscription"])}


def _host(daemon: Daemon, body: Any) -> dict[str, str]:
    port = int(body.get("ssh_port") or daemon.ssh_port)
    data = network.host_user_data(str(body["user"]), str(body["public_key"]), port)
    address = daemon.world.host(str(body["name"]), data, body.get("egress"))
    daemon.settle(60.0)
    return {"address": address}


def _remove_host(daemon: Daemon, name: str) -> dict[str, bool]:
    removed = daemon.world.remove_host(name)
    daemon.settle(20.0)
    return {"removed": removed}


def _stop_soon(daemon: Daemon) -> dict[str, bool]:
    threading.Timer(0.05, daemon.stop).start()
    return {"stopping": True}
