"""The sandbox's daemon: `python -m deployer.sandbox.daemon HOME [READY_FD [IMAGE]]`.

With IMAGE, the root file system of the nspawn driver, machines are systems of their own; without, processes.

It holds the emulated clouds, the plugins' leases, the machines and the world around them. One for each home (a lock
says so); each start is another realm, because the clouds live in this process's memory. When it is killed, its machines
notice and end by themselves; the next start sweeps up what they could not.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import resource
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployer.sandbox import faults, network, self_off
from deployer.sandbox.addresses import Block, NoLoopbackBlock, take_block
from deployer.sandbox.api import routes
from deployer.sandbox.aws import accounts
from deployer.sandbox.control import Control
from deployer.sandbox.leftovers import clean
from deployer.sandbox.machines import tree
from deployer.sandbox.machines.driver import Driver
from deployer.sandbox.machines.kind import PROCESS
from deployer.sandbox.machines.nspawn.core import Core, NoNetwork
from deployer.sandbox.machines.nspawn.doors import ARM, SERVICE, Door
from deployer.sandbox.machines.nspawn.kind import nspawn_kind
from deployer.sandbox.model import InventoryItem, MachineSpec
from deployer.sandbox.plugins import Plugins
from deployer.sandbox.state import DEFAULT_REGION, FAULTS, LOCK, SandboxState, try_lock

_LOG = logging.getLogger("sandbox")
_SETTLE_S = 0.02
"""Changes in a cloud come in bursts: how long the machines' reconciliation waits for the next one."""
_SSH_PORTS = (2222, 2022, 22022, 10022)
VOLUME_KINDS = ("ec2:volume", "Microsoft.Compute/disks")


class Daemon:
    """One life of a sandbox."""

    def __init__(self, home: Path, image: Path | None = None) -> None:
        from fl_runtime import version

        self.home = home
        self.version = version()
        self.realm_id = f"sandbox-{secrets.token_hex(6)}"
        self.began = time.time()
        self._stopping = threading.Event()
        self._dirty = threading.Event()
        self.faults = faults.use(home / FAULTS)
        self.block: Block = take_block(str(home))
        self.public, self.kind, self.ssh_port = self.block.public, PROCESS, 22
        claim = None
        if image is not None:
            core = Core.take(home)
            self.public, self.kind, claim = core.public, nspawn_kind(home, image, core.name), core.claim
        else:
            self.ssh_port = _free_port(str(self.public.network[1]))
        self.driver = Driver(home, str(self.public.network), self.block.private, self.faults, True, self.kind)
        self.world = network.World(self.public, self.changed, claim)
        self._applied_world: Mapping[str, str] = {}
        self._start_clouds()
        self.plugins = Plugins({"aws": self._aws_provider, "azure-native": self._azure_provider})
        self._control = Control(self.block.holder, secrets.token_hex(16), routes(self))

    def _start_clouds(self) -> None:
        from deployer.sandbox.aws.moto_server import MotoServer
        from deployer.sandbox.azure.arm_server import ArmServer

        self._aws = MotoServer(self.changed, self.public)
        self.aws_url = self._aws.start()
        self.write_profiles()
        (self.home / "azure").mkdir(mode=0o700, exist_ok=True)
        self.azure = ArmServer(
            self.changed,
            addresses=self.public,
            home=self.home / "azure",
            faults=self.faults,
            console=self.driver.console,
        )
        self.azure_url = self.azure.start()
        ways = {} if self.kind is PROCESS else {ARM: self.azure_url, SERVICE: self.azure.metadata_url}
        self._doors = [Door(self.home / "azure", name, url) for name, url in ways.items()]
        self.driver.on_switched_off = lambda spec: self_off.switched_off(spec, self.aws_url, self.azure)

    def _aws_provider(self) -> Any:
        from deployer.sandbox.aws.provider import AwsProvider

        return AwsProvider(self.aws_url)

    def _azure_provider(self) -> Any:
        from deployer.sandbox.azure.provider import AzureNativeProvider

        return AzureNativeProvider(self.azure_url, str(self.azure.ca_file), self.azure.environment())

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Serves from now on; `state.json` says where."""
        self._control.start()
        threading.Thread(target=self._reconcile, name="reconcile", daemon=True).start()
        # What the first engine command needs takes a second to import: begin now, don't wait for it.
        threading.Thread(target=_import_plugins, name="import plugins", daemon=True).start()
        host, port = self.block.holder.getsockname()
        SandboxState(
            realm_id=self.realm_id,
            pid=os.getpid(),
            started=tree.start_time(os.getpid()),
            version=self.version,
            control=(host, port),
            token=self._control.token,
            ssh_port=self.ssh_port,
            block=str(self.public.network),
            driver=self.kind.name,
            aws_url=self.aws_url,
            arm_url=self.azure_url,
            metadata_url=self.azure.metadata_url,
            ca_file=str(self.azure.ca_file),
            azure=dict(self.azure.environment()),
        ).save(self.home)
        self.changed()

    def wait(self) -> None:
        """Returns when the daemon was told to stop."""
        self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()
        self._dirty.set()

    def changed(self) -> None:
        """Something changed in a cloud or in the world: the machines have to follow. From any thread, any time."""
        self._dirty.set()

    def close(self) -> None:
        """Ends everything and removes what it made."""
        self._stopping.set()
        self._dirty.set()
        self._control.close()
        self.plugins.close()
        self.driver.close()
        self.world.close()
        for door in self._doors:
            door.close()
        for cloud in (self._aws, self.azure):
            cloud.stop()
        tree.end_descendants(0.0)

    # -- machines -----------------------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        while not self._stopping.is_set():
            self._dirty.wait()
            time.sleep(_SETTLE_S)
            self._dirty.clear()
            try:
                self._follow()
            except Exception:  # a cloud's view that fails once must not end the machines' reconciliation for good
                _LOG.exception("the machines could not be brought in line with the clouds")
                if not self._stopping.wait(1.0):
                    self._dirty.set()

    def _follow(self) -> None:
        if self._stopping.is_set():
            return
        world = self.world.map()
        if world != self._applied_world:
            self.driver.set_world(world)
            self._applied_world = world
        volumes = {item.id for item in self.inventory() if item.kind in VOLUME_KINDS}
        self.driver.reconcile(self._specs(), volumes)

    def _specs(self) -> list[MachineSpec]:
        from deployer.sandbox.aws import view

        return [*view.machines(), *self.azure.machines(), *self.world.hosts()]

    def inventory(self) -> list[InventoryItem]:
        from deployer.sandbox.aws import view

        return [*view.inventory(), *self.azure.inventory()]

    def settle(self, seconds: float) -> bool:
        """Waits until the machines are what the clouds say. False if that took too long."""
        self._follow()
        return self.driver.wait(min(max(seconds, 0.0), 60.0))

    def write_profiles(self) -> None:
        """The shared files that AWS clients read, for boto3 by hand and for the plugin."""
        folder = self.home / "aws"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "credentials").write_text(accounts.credentials_file())
        sections = (f"[{name if name == 'default' else f'profile {name}'}]" for name in accounts.PROFILES)
        settings = f"region = {DEFAULT_REGION}\nendpoint_url = {self.aws_url}\n"
        (folder / "config").write_text("".join(f"{section}\n{settings}\n" for section in sections))


def _import_plugins() -> None:
    """Loads what the first lease needs, so that it need not wait for it."""
    for name in (
        "pulumi.runtime.proto.provider_pb2_grpc",
        "deployer.sandbox.aws.provider",
        "deployer.sandbox.azure.provider",
    ):
        importlib.import_module(name)


def _free_port(address: str) -> int:
    """A port for SSH that no program of this computer holds on all addresses."""
    for port in _SSH_PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((address, port))
            return port
    return _SSH_PORTS[0]


def main() -> int:
    home = Path(sys.argv[1])
    # Whoever starts the daemon need not live on to reap it.
    if os.fork():
        os._exit(0)
    ready = os.fdopen(int(sys.argv[2]), "w", buffering=1) if len(sys.argv) > 2 else None
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("werkzeug", "botocore", "azure"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

    def say(**what: object) -> None:
        if ready is not None:
            with contextlib.suppress(OSError):
                ready.write(json.dumps(what) + "\n")

    say(pid=os.getpid())
    lock = try_lock(home / LOCK)
    if lock is None:
        say(error="another daemon holds this home")
        return 1
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tree.become_subreaper()
    clean(home, faults=False)  # faults may have been set before the start
    for name in ("tmp", "home"):
        (home / name).mkdir(mode=0o700)
    try:
        daemon = Daemon(home, Path(sys.argv[3]) if len(sys.argv) > 3 else None)
    except (NoLoopbackBlock, NoNetwork) as error:
        say(error=str(error))
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    daemon.start()
    _LOG.info("realm %s, pid %d, %s", daemon.realm_id, os.getpid(), home)
    say(ready=daemon.realm_id)
    if ready is not None:
        ready.close()
    daemon.wait()
    daemon.close()
    clean(home)
    _LOG.info("realm %s has ended", daemon.realm_id)
    sys.stderr.flush()
    # Libraries' worker threads (gRPC, executors) have nothing left to do, and must not hold up the end.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
