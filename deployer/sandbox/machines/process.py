"""One machine: `python -m deployer.sandbox.machines.process SETUP.json`.

The process *is* the machine: it boots from user-data, serves SSH, stands before its ports, is its way out to the
network, and is the ancestor of everything that runs on it. When it ends, all of that ends. It obeys and reports as
`deployer.sandbox.machines.orders` describes; when its standard input ends, whoever started it is gone, and it ends too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import sys
import time
from pathlib import Path

from deployer.sandbox.machines import disk, landlock, self_deallocation, tree
from deployer.sandbox.machines.boot import BootPlan, plan_boot
from deployer.sandbox.machines.egress import Egress
from deployer.sandbox.machines.front import Front
from deployer.sandbox.machines.kind import SWITCHED_OFF
from deployer.sandbox.machines.orders import Reports, Stop, read
from deployer.sandbox.machines.session import Commands, proxy_environment
from deployer.sandbox.machines.setup import SHUTDOWN_S, MachineSetup, volume_folder
from deployer.sandbox.machines.ssh import MachineSsh, new_host_key, write_private
from deployer.sandbox.machines.timer import end_of, repeated

_CONTROL_LINE = 4 * 1024 * 1024
_REAP_S = 0.5
_TIMERS_S = 0.5
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/shm")  # noqa: S108 - no temporary files
"""What of /dev a machine may write to; NVIDIA's devices are not there: a sandbox has no GPUs."""


class MachineProcess:
    """A machine from its boot to its end."""

    def __init__(self, setup: MachineSetup) -> None:
        self._setup = setup
        self._spec = setup.machine
        self._network = setup.network
        self._root = setup.root
        self.switched_off = False
        self._stop: asyncio.Future[float] | None = None
        self._console = open(Path(setup.folder, "console.log"), "a", buffering=1)  # noqa: SIM115  # for life
        self._booted = time.monotonic()
        self._reports = Reports()
        self._ssh: MachineSsh | None = None
        self._front: Front
        self._egress: Egress
        self._commands: Commands
        self._ssh_ports: tuple[int, ...] = ()
        self._ssh_problems: list[str] = []
        self._mounts_state = False
        self._reaping: asyncio.TimerHandle | None = None

    def log(self, line: str) -> None:
        text = line.encode("ascii", "backslashreplace").decode()
        self._console.write(f"[{time.monotonic() - self._booted:12.6f}] {text}\n")

    def boot(self) -> None:
        """The disk, the first boot's work, the volume. Before any thread is started, because it confines itself."""
        folder = Path(self._setup.folder)
        self.log(f"fedspan sandbox machine {self._spec.id} ({self._spec.size}, {self._spec.region}) boots")
        first = folder / "first-boot.json"
        if first.exists():
            saved = json.loads(first.read_text())
            disk.make_root(self._root, saved["users"])
            self.log("cloud-init: not a first boot: user-data is not read again")
        else:
            plan = plan_boot(self._spec.user_data, self._spec.login_keys)
            disk.make_root(self._root, plan.users)
            self._first_boot(plan)
            saved = {
                "users": list(plan.users),
                "ssh_ports": list(plan.ssh_ports),
                "mounts_state": plan.mounts_state,
                "hostname": plan.hostname,
            }
            first.write_text(json.dumps(saved))
        self._ssh_ports = tuple(saved["ssh_ports"])
        self._mounts_state = bool(saved["mounts_state"])
        self._hostname = str(saved["hostname"] or self._spec.participant or "machine")
        self._mount()
        os.makedirs(self._setup.volumes, exist_ok=True)
        if self._setup.confine:
            held = landlock.confine([folder, self._setup.volumes, *(path for path in _DEVICES if os.path.exists(path))])
            self.log(f"kernel: writes outside of this machine: {'refused' if held else 'not prevented (no Landlock)'}")

    def _first_boot(self, plan: BootPlan) -> None:
        for line in plan.log:
            self.log(line)
        for problem in disk.write_files(self._root, plan.files):
            self.log(f"cloud-init: {problem}")
        if plan.hostname:
            (self._root / "etc/hostname").write_text(f"{plan.hostname}\n")
        for user, keys in plan.users.items():
            disk.write_keys(self._root, user, keys)
        path = self._root / "etc/ssh" / f"ssh_host_{plan.host_key_type}_key"
        if plan.host_key is not None:
            write_private(path, plan.host_key)
            # An unreadable key is found out here: sshd of a real machine would then make keys of its own.
            probe = MachineSsh(self._root, Path(self._setup.volumes), Commands(self._root, {}), self.log, False)
            with contextlib.suppress(ValueError):
                public = probe.host_key()
                path.with_name(path.name + ".pub").write_text(public + "\n")
                self.log("cloud-init: host key from user-data")
                return
            path.unlink()
        new_host_key(self._root / "etc/ssh/ssh_host_ed25519_key")
        self.log("cloud-init: generated a host key")

    def _mount(self) -> None:
        volume = self._spec.volumes[0][0] if self._spec.volumes and self._mounts_state else None
        target = volume_folder(self._setup.volumes, volume) if volume else None
        if (line := disk.mount_state(self._root, target)) is not None:
            self.log(line)

    async def run(self) -> None:
        """Serves until told to stop, or until nobody is left to tell it anything."""
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, SHUTDOWN_S)
        loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
        self._egress = Egress(self._setup.bind, self._network.public)
        extra = proxy_environment(self._root, self._setup.bind, self._egress.url, self._hostname)
        self._commands = Commands(self._root, extra)
        self._front = Front(self._setup.bind, self._network, self._tell)
        self._start_ssh()
        self._apply()
        control = asyncio.ensure_future(self._obey()) if self._setup.watch_stdin else None
        timers = asyncio.ensure_future(self._obey_timers())
        grace = await self._stop
        timers.cancel()
        if control is not None:
            control.cancel()
        self.log("system is going down" if grace else "power off")
        self._front.close()
        self._egress.close()
        if self._ssh is not None:
            self._ssh.close()
        await asyncio.sleep(0)
        # Blocks on purpose: nothing else has to happen in this process any more.
        tree.end_descendants(grace)
        self.log("reached target power off")

    async def _obey_timers(self) -> None:
        booted, looked = time.time(), 0.0
        while (end := end_of(self._root, booted)) is None or time.time() < end:
            timer, now = repeated(self._root), time.monotonic()
            due = max(self._booted + timer.first_s, looked + timer.every_s) if timer else 0.0
            if timer is not None and now >= due:
                looked = now
                if timer.says_off(self._root):
                    self.log("systemd: a timer's condition is met: power off")
                    break
            await asyncio.sleep(_TIMERS_S)
        else:
            self.log("systemd: a timer's date is reached: power off")
        self.switched_off = True
        try:
            await self_deallocation.run(self._root, self._commands, self.log)
        finally:  # whatever becomes of that
            self.stop(SHUTDOWN_S)

    def _start_ssh(self) -> None:
        if self._setup.never_ssh:
            self.log("sshd: never starts (fault)")
            return
        wrong = self._setup.wrong_host_key
        volumes = Path(self._setup.volumes)
        self._ssh = MachineSsh(self._root, volumes, self._commands, self.log, wrong)
        for port in self._ssh_ports:
            try:
                self._ssh.listen(self._setup.bind, port)
            except OSError as error:
                why = error.strerror
                if port < 1024:
                    why = f"{why} (ports below 1024 need root; use another one)"
                self._ssh_problems.append(f"sshd: port {port}: {why}")
                self.log(self._ssh_problems[-1])
            else:
                self.log(f"sshd: listening on port {port}; host key {self._ssh.host_key()}")

    def stop(self, grace: float) -> None:
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(grace)

    def _apply(self) -> None:
        """Makes the network what the spec says, and tells the driver what came of it."""
        spec = self._spec
        self._front.apply(spec.public_ip, spec.ingress, self._network)
        self._egress.use_source(spec.public_ip or spec.egress_ip)
        self._tell()

    def _tell(self) -> None:
        state = {
            "pid": os.getpid(),
            "ssh_ports": list(self._ssh_ports),
            "ports": self._front.ports,
            "egress": self._egress.url,
            "host_key": self._ssh.host_key() if self._ssh is not None else None,
            "problems": [*self._ssh_problems, *self._front.problems.values()],
        }
        try:
            self._reports.tell(state)
        except OSError:
            self.stop(0.0)

    async def _obey(self) -> None:
        reader = asyncio.StreamReader(limit=_CONTROL_LINE)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            try:
                order = read(line, self._spec)
            except ValueError as error:
                self.log(f"control: not understood: {error}")
                continue
            if isinstance(order, Stop):
                self.stop(order.grace)
            else:
                self._spec, self._network = order.machine, order.network
                self._mount()
                self._apply()
        self.log("whoever started this machine is gone")
        self.stop(0.0)

    def _child_ended(self) -> None:
        # Orphans of this machine are adopted by this process, which has to reap them. Its own commands are reaped by
        # those who wait for them; hence the pause.
        if self._reaping is None:
            self._reaping = asyncio.get_running_loop().call_later(_REAP_S, self._reap)

    def _reap(self) -> None:
        self._reaping = None
        for pid in tree.zombies(os.getpid()):
            if self._commands.awaits(pid):
                self._child_ended()  # looked at again: it may be an orphan all the same
            else:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def main() -> None:
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    os.umask(0o022)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tree.become_subreaper()
    machine = MachineProcess(MachineSetup.load(Path(sys.argv[1])))
    machine.boot()
    asyncio.run(machine.run())
    if machine.switched_off:
        sys.exit(SWITCHED_OFF)


if __name__ == "__main__":
    main()
