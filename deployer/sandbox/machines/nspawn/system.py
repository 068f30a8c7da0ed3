"""The system of one machine: its disk over the image, its boot by systemd-nspawn, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from deployer.sandbox.machines.nspawn import cgroup, firmware, tools
from deployer.sandbox.machines.setup import MachineSetup

_LANDLOCK = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
_REBOOT = 133
"""nspawn's exit status when the system asked for a reboot and nspawn keeps to the group that it is in."""
_FAULT_FILES = ("sshd_not_to_be_run", "fault_key", "fault_key.pub", "sshd_config.d/00-fault.conf")


class System:
    """A disk and what runs from it. The mounts are in this process's own mount namespace."""

    def __init__(self, setup: MachineSetup) -> None:
        self._setup = setup
        self._folder = Path(setup.folder)
        self._namespace = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._console = open(self._folder / "console.log", "ab", buffering=0)  # noqa: SIM115  # for life

    def log(self, line: str) -> None:
        self._console.write(f"[sandbox] {line}\n".encode())

    def prepare(self) -> None:
        """Mounts the disk: the image, read-only, under a folder of the machine's own. Raises OSError."""
        spec = self._setup.machine
        self.log(f"machine {spec.id} ({spec.size}, {spec.region}) boots")
        upper, work, root = (self._folder / name for name in ("disk", "work", "root"))
        first = not upper.is_dir()
        for folder in (upper, work, root):
            folder.mkdir(exist_ok=True)
        # The machine's / is the top of the disk: everybody on it must be able to enter.
        upper.chmod(0o755)
        layers = f"lowerdir={self._setup.options['image']},upperdir={upper},workdir={work}"
        tools.call(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)])
        if first:
            self._write(firmware.first_disk(spec))
            for path, target in firmware.LINKS.items():
                link = root / path.lstrip("/")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(target)
        for name in _FAULT_FILES:
            (root / "etc/ssh" / name).unlink(missing_ok=True)
        key = self._other_key() if self._setup.wrong_host_key else None
        self._write(firmware.faulty(self._setup.never_ssh, key))

    def _write(self, files: firmware.Files) -> None:
        for path, (mode, text) in files.items():
            target = self._folder / "root" / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
                file.write(text)
            target.chmod(mode)

    def _other_key(self) -> tuple[str, str]:
        path = self._folder / "fault_key"
        if not path.exists():
            tools.call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)])
        return path.read_text(), path.with_suffix(".pub").read_text()

    def boot(self, namespace: str) -> None:
        """Starts the system; its console goes to console.log.

        No registration with machined and no user namespace: neither is there in a container's or a small VM's init.
        Where no systemd runs this computer, nspawn keeps to the group that it is in. The packet filter of the
        machine's own namespace is the machine's business, as in a cloud, hence CAP_NET_ADMIN.
        """
        self._namespace = namespace
        self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        words = ["systemd-nspawn", "--quiet", "--register=no", "--private-users=no", "--boot"]
        words += [] if cgroup.has_systemd() else ["--keep-unit"]
        words += [f"--machine={self._folder.name}", f"--directory={self._folder / 'root'}"]
        words += [f"--network-namespace-path={self._namespace}", "--capability=CAP_NET_ADMIN", "--console=read-only"]
        # Landlock confines jobs; nspawn's list of system calls is older than that, up to systemd 252 at least.
        words += [f"--system-call-filter={' '.join(_LANDLOCK)}"]
        words += ["--resolv-conf=off", "--timezone=off", "--link-journal=no"]
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=self._console,
            env=tools.environment(),
        )

    def alive(self) -> bool:
        """Whether the system runs; one that rebooted itself is booted again."""
        if self._process is not None and self._process.poll() == _REBOOT:
            self.log("reboot")
            self._process = self._spawn()
        return self._process is not None and self._process.poll() is None

    @property
    def powered_off(self) -> bool:
        """Whether the system has ended as one does that powers itself off; false for one whose nspawn was killed."""
        return self._process is not None and self._process.poll() == 0

    @property
    def leader(self) -> int | None:
        """The process id of the system's init; another one after it rebooted itself."""
        if self._process is None:
            return None
        try:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[-1]) if children else None

    def dev(self) -> Path | None:
        """The system's /dev, seen from outside, once it has one of its own."""
        if (leader := self.leader) is None:
            return None
        dev = Path(f"/proc/{leader}/root/dev")
        return dev if (dev / "pts/ptmx").exists() and not (dev / "loop-control").exists() else None

    def host_key(self) -> str | None:
        """The public host key that sshd shows, once there is one."""
        name = "fault_key.pub" if self._setup.wrong_host_key else "ssh_host_ed25519_key.pub"
        try:
            return " ".join((self._folder / "root/etc/ssh" / name).read_text().split()[:2]) or None
        except OSError:
            return None

    def end(self, grace: float) -> None:
        """Shuts the system down in order within `grace` seconds, or switches it off at once with 0."""
        process = self._process
        if process is None:
            return
        if grace > 0 and process.poll() is None:
            process.send_signal(signal.SIGTERM)  # nspawn tells the system to power off
            deadline = time.monotonic() + grace
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        if process.poll() is None:
            process.kill()
        process.wait()
        self.log("power off")
