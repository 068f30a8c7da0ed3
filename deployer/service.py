"""The runtime's process on a machine: a systemd unit where systemd runs, a supervised process elsewhere.

Both are driven over SSH by argv; which one it is, the machine's facts say. Nothing here knows what the runtime does.
"""

from __future__ import annotations

import json
import time
from typing import Any

from deployer.errors import MachineError
from deployer.launch import Launch, Started, digest_of
from deployer.ssh.machine import Machine
from deployer.ssh.session import Completed
from deployer.unit_file import RUNTIME_USER, UNIT_NAME, UNIT_PATH, UnitSpec, unit_text
from stacks.state_volume import UNIT_NAME as STATE_UNIT

OPT = "/opt/fedspan"
KIT = f"{OPT}/kit"
BUNDLE = f"{OPT}/bundle"
VENV = f"{OPT}/venv"
"""A link to the virtual environment in use, `venv-<bundle's hash>`."""
STARTED = f"{OPT}/started.json"
STATE_ROOT = "/var/lib/fedspan"
STATE = f"{STATE_ROOT}/state"
LOG = f"{STATE}/runtime.log"

START_DEADLINE_S = 60.0
"""A process that was started has to answer `status` within this time; a small machine reads it from a cold disk."""

STOP_DEADLINE_S = 60.0

NOT_RUNNING = 3
"""Exit code of `fl_runtime status` where nothing runs."""

_USERADD = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", STATE_ROOT]
_USERADD += ["--shell", "/usr/sbin/nologin"]


class Service:
    """The runtime's process on one machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.facts = machine.facts()

    @property
    def systemd(self) -> bool:
        return self.facts.systemd and self.facts.privileged

    @property
    def owner(self) -> str:
        """The user that the kit and the state belong to; empty for the login itself."""
        return RUNTIME_USER if self.systemd else ""

    def path(self, absolute: str) -> str:
        return self.facts.path(absolute)

    def argv(self, launch: Launch) -> list[str]:
        """The runtime in the foreground."""
        words = [f"{launch.venv}/bin/python", "-m", "fl_runtime", "serve"]
        words += ["--kit", self.path(KIT), "--state", self.path(STATE)]
        for key, value in sorted(launch.labels.items()):
            words += ["--label", f"{key}={value}"]
        return words

    def verify_argv(self, launch: Launch) -> list[str]:
        """The kit's verification, by the code that was pushed."""
        python = f"{launch.venv}/bin/python"
        return [python, "-m", "startup_kits.verify", self.path(KIT), "--ca-fingerprint", launch.ca_fingerprint]

    def prepare(self) -> None:
        """The user and the folders. The state volume is mounted first, where the machine has one."""
        if self.systemd:
            if self._state_unit():
                self.machine.run_privileged(["systemctl", "start", STATE_UNIT])
            self.ensure_user()
            folders = [STATE_ROOT, STATE]
            self.machine.run_privileged(
                ["install", "-d", "-m", "0750", "-o", RUNTIME_USER, "-g", RUNTIME_USER, *folders]
            )
        else:
            self.machine.run_privileged(["mkdir", "-p", self.path(OPT), self.path(STATE)])
            if self.facts.sudo:  # root's folders, but the process is the login's
                owner = f"{self.facts.user}:"
                self.machine.run_privileged(["chown", "-R", owner, self.path(OPT), self.path(STATE_ROOT)])

    def ensure_user(self) -> None:
        """The runtime's own user, where it has one."""
        if self.machine.run(["id", "-u", RUNTIME_USER], check=False).status != 0:
            self.machine.run_privileged([*_USERADD, RUNTIME_USER])

    def start(self, launch: Launch) -> bool:
        """Makes the launch the one that runs; whether anything had to be done.

        Raises:
            MachineError: it does not come up; the cause is the end of its log.
        """
        unit = self._unit(launch) if self.systemd else ""
        everything: list[Any] = [launch.bundle, launch.kit, self.argv(launch), self.verify_argv(launch), unit]
        wanted = digest_of(*everything, dict(launch.environment))
        running, before = self.alive(), self.started()
        if running and before.digest == wanted:
            return False
        if running:
            self.stop()
        if before != Started():  # a start that fails, or is cut off, must not leave a note that says it is as before
            self._note(before.begun(launch))
        self.machine.run_privileged(["ln", "-sfn", launch.venv, self.path(VENV)])
        if not running and not self.systemd:
            self.stop()  # by the new code: one that dies at each start, or is too broken to tell that it runs
        if self.systemd:
            self._start_unit(unit)
        else:
            self._start_supervised(launch)
        self._await(before, launch)
        self._note(before.followed_by(launch, wanted))
        return True

    def start_again(self) -> bool:
        """Starts what was started last and does not run now (the machine was off); whether anything had to be done.

        Raises:
            MachineError: nothing was ever started there, or it does not come up.
        """
        launch = self.started().launch
        if launch is None:
            raise MachineError(
                "nothing was started on the machine yet",
                participant=self.machine.name,
                next_step=f"fedspan up {self.machine.name}",
            )
        return self.start(launch)

    def alive(self) -> bool:
        """Whether the runtime's process lives."""
        if self.systemd:
            done = self.machine.run_privileged(["systemctl", "is-active", "--quiet", UNIT_NAME], check=False)
            return done.status == 0
        return self.answers()

    def answers(self) -> bool:
        """Whether the runtime says something of itself. That its process lives says less: one that dies at each start
        lives too, again and again.
        """
        try:
            return self.status() is not None
        except MachineError:
            return False  # an installation that cannot even tell: whatever is wanted is started anew

    def status(self) -> dict[str, Any] | None:
        """What the runtime says about itself; None where it is not installed or not running."""
        python = f"{self.path(VENV)}/bin/python"
        argv = [python, "-m", "fl_runtime", "status", "--state", self.path(STATE)]
        done = self.machine.run_privileged(argv, check=False, timeout_s=60)
        if done.status == NOT_RUNNING or _absent(done):
            return None
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            raise self.machine.failed(done) from error
        if not isinstance(answer, dict):
            raise self.machine.failed(done)
        return answer

    def stop(self) -> bool:
        """Stops the runtime with its jobs, cleanly; whether it was running.

        Raises:
            MachineError: it does not end.
        """
        if self.systemd:
            running = self.alive()
            self.machine.run_privileged(["systemctl", "stop", UNIT_NAME], check=running, timeout_s=STOP_DEADLINE_S)
            return running
        python = f"{self.path(VENV)}/bin/python"
        argv = [python, "-m", "fl_runtime", "stop", "--state", self.path(STATE)]
        # Whatever it says of itself: the supervisor of one that dies at each start has to end too.
        done = self.machine.run_privileged(argv, check=False, timeout_s=STOP_DEADLINE_S)
        if _absent(done):
            return False
        if done.status != 0:
            raise self.machine.failed(done)
        return "nothing runs" not in done.stdout

    def remove(self, *, keep_state: bool = False) -> None:
        """Stops the runtime and takes everything off the machine that was put there."""
        self.stop()
        if self.systemd:
            self.machine.run_privileged(["systemctl", "disable", "--quiet", UNIT_NAME], check=False)
            self.machine.run_privileged(["rm", "-f", UNIT_PATH])
            self.machine.run_privileged(["systemctl", "daemon-reload"])
        gone = [self.path(OPT)] + ([] if keep_state else [self.path(STATE)])
        self.machine.run_privileged(["rm", "-rf", *gone])

    def log_end(self, lines: int = 20) -> str:
        """The last lines of the runtime's log."""
        if self.systemd:
            argv = ["journalctl", "--unit", UNIT_NAME, "--output", "cat", "--no-pager", "--lines", str(lines)]
        else:
            argv = ["tail", "-n", str(lines), self.path(LOG)]
        return self.machine.run_privileged(argv, check=False, timeout_s=30).stdout.rstrip()

    def _unit(self, launch: Launch) -> str:
        return unit_text(
            UnitSpec(
                description=launch.description,
                argv=self.argv(launch),
                user=RUNTIME_USER,
                state=STATE_ROOT,
                port=launch.port,
                after=[STATE_UNIT] if self._state_unit() else [],
                environment={"HOME": STATE_ROOT, "PYTHONUNBUFFERED": "1", **launch.environment},
                check=self.verify_argv(launch),
                metadata=launch.labels.get("target") not in ("aws", "azure"),
            )
        )

    def _state_unit(self) -> bool:
        done = self.machine.run(["systemctl", "cat", STATE_UNIT], check=False)
        return done.status == 0

    def _start_unit(self, unit: str) -> None:
        if self.machine.put_file(unit.encode(), UNIT_PATH, privileged=True).changed:
            self.machine.run_privileged(["systemctl", "daemon-reload"])
        self.machine.run_privileged(["systemctl", "enable", "--quiet", UNIT_NAME])
        self.machine.run_privileged(["systemctl", "restart", UNIT_NAME], check=False, timeout_s=120)

    def _start_supervised(self, launch: Launch) -> None:
        python = f"{launch.venv}/bin/python"
        supervise = [python, "-m", "fl_runtime", "supervise", "--state", self.path(STATE), "--", *self.argv(launch)]
        # As the login, not as root: a supervised runtime has no more rights than whoever deployed it.
        # It detaches itself and returns; what it says to the end goes to its log.
        self.machine.run(supervise, env=launch.environment, timeout_s=60)

    def _await(self, before: Started, launch: Launch) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        pause = 0.1
        while True:
            if self.answers():
                return
            if time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)
        name = self.machine.name
        back = before.launch is not None and before.launch.bundle != launch.bundle
        raise MachineError(
            f"the runtime did not come up within {START_DEADLINE_S:.0f} s",
            participant=name,
            why=self.log_end(5) or "it wrote no log",
            next_step=f"fedspan logs {name} --tail 100"
            + (f"; fedspan rollback {name} --resume puts back the runtime that ran before" if back else ""),
        )

    def _note(self, note: Started) -> None:
        self.machine.put_file(note.text(), self.path(STARTED), privileged=True)

    def started(self) -> Started:
        """What was started here last, and what before."""
        done = self.machine.run_privileged(["cat", self.path(STARTED)], check=False, timeout_s=30)
        return Started.read(done.stdout)


def _absent(done: Completed) -> bool:
    """Whether a command could not run because no runtime is installed."""
    return done.status == 127 or "No such file" in done.stderr or "command not found" in done.stderr
