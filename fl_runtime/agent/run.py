"""One job on this site: its process, its tasks, its log."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_runtime import processes
from fl_runtime.agent.interpreter import Interpreter, own_interpreter
from fl_runtime.agent.journal import READY, Journal, TaskRow
from fl_runtime.agent.place import SWEEP_S, Place
from fl_runtime.agent.ranks import Turns
from fl_runtime.client.session import EPOCH, JOB, SOCKET
from fl_runtime.errors import FlError
from fl_runtime.job.spec import JobSpec
from fl_runtime.names import STOP_S
from fl_runtime.patience import AGAIN_S, again, is_full
from fl_runtime.tail import last_lines

log = logging.getLogger("fedspan.agent")

MAX_RESTARTS = 3  # of a script that fails, without a finished task between
AGENT_GONE = 75  # the exit code of a script whose agent did not come back


class Run(Turns):
    """`on_end(run, state, why)` is called when the script has left or failed for good."""

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        place: Place,
        data: dict[str, str],
        journal: Journal,
        on_end: Callable[[Run, str, str], None],
        interpreter: Callable[[], Interpreter] = own_interpreter,
    ) -> None:
        super().__init__(job)
        self.spec = spec
        self.place = place
        self.data = data
        self.log_path = place.log
        self.gpus: tuple[str, ...] = ()  # what CUDA_VISIBLE_DEVICES names
        self.memory = 0  # bytes it may use; 0 = as many as there are
        self._journal = journal
        self._on_end = on_end
        self._interpreter = interpreter
        self._child: subprocess.Popen[bytes] | None = None
        self.process: processes.ProcessId | None = None

    # --- the process

    def start(self) -> None:
        """Launch the script, under a new epoch: what an older launch still sends is refused.

        A full disk is waited for.
        """
        try:
            self._launch()
        except (FlError, OSError) as error:
            if not is_full(error):
                self._on_end(self, "failed", f"its script can't be started: {error}")
                return
            log.error("%s: its script waits: %s", self.job, error)
            again(self.start)

    def _launch(self) -> None:
        if self.spec.attach:
            self.epoch = max(self.epoch, 1)
            self._journal.set_process(self.job, self.epoch, None)
            log.info("%s: waits for a process that attaches itself", self.job)
            return
        try:
            python = self._interpreter()  # asked each time: local/resources.yml may have been mended
        except FlError as error:
            self._on_end(self, "failed", f"{error.what}: {error.why}")
            return
        with self._condition:
            if self.over or (self.process is not None and self.process.alive()):
                return
            self.epoch += 1
            self._again()
            self._journal.set_process(self.job, self.epoch, None)
            env = processes.job_environment({SOCKET: str(self.place.socket), JOB: self.job, EPOCH: str(self.epoch)})
            env.update(python.environment)
            env.update({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(self.gpus)})
            argv = [python.path, "-u", *self._program()]
            child = self._child = self.place.launch(
                argv, env, self.epoch, self.data.values(), self.memory, self._note_process
            )
        log.info("%s: its script runs below process %s (%s)", self.job, child.pid, self.place.isolation)
        threading.Thread(target=self._wait_child, args=(child,), name=f"wait-{self.job}", daemon=True).start()

    def _note_process(self, pid: int) -> None:
        self.process = processes.identify(pid)
        self._journal.set_process(self.job, self.epoch, self.process)

    def _program(self) -> list[str]:
        if self.spec.script:
            return [str(self.place.bundle / self.spec.script), *self.spec.args]
        return ["-m", "fl_runtime.apis.host"]

    def adopt(self, process: processes.ProcessId, epoch: int) -> None:
        """Go on with a process that an earlier life of this agent has started."""
        self.epoch, self.process = epoch, process
        script = self.place.recorded(epoch).get("script", process.pid)
        log.info("%s: goes on with process %s", self.job, script)
        threading.Thread(target=self._wait_adopted, args=(process,), name=f"wait-{self.job}", daemon=True).start()

    def _wait_child(self, child: subprocess.Popen[bytes]) -> None:
        self._exited(child.pid, child.wait())

    def _wait_adopted(self, process: processes.ProcessId) -> None:
        try:
            fd = os.pidfd_open(process.pid)
        except OSError:
            fd = -1
        if fd >= 0 and process.alive():
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll()
        if fd >= 0:
            os.close(fd)
        self._exited(process.pid, AGENT_GONE)

    def _exited(self, pid: int, code: int) -> None:
        """The keeper has ended: with `code`, if that is known. What it has noted says more."""
        self.place.sweep()
        noted = self.place.recorded(self.epoch)
        code = int(noted.get("code", code))
        with self._condition:
            if self.over or self.process is None or self.process.pid != pid:
                return
            self.process = None
            full = code != 0 and self._journal.blobs.space.exhausted()  # even its output could fail
            if code not in (0, AGENT_GONE) and not full:
                self._failures += 1
            failures = self._failures
        words = noted.get("why") or self._last_words()
        if code == 0:
            self._on_end(self, "left", "its script ended before the job did")
        elif failures > MAX_RESTARTS:
            self._on_end(self, "failed", f"its script ended {failures} times with an error (code {code}): {words}")
        else:
            log.warning("%s: its script ended with code %s (%s); started again", self.job, code, words)
            time.sleep(AGAIN_S if full else 0.25 * 2**failures)
            self.start()

    def _last_words(self) -> str:
        lines = last_lines(self.log_path)
        return lines[-1][:300] if lines else "it printed nothing"

    def end(self) -> None:
        """End the process group, whatever it does with signals; wake who waits for tasks."""
        with self._condition:
            self.over = True
            self._condition.notify_all()
            process, child = self.process, self._child
        if process is not None:
            end_at = time.monotonic() + 1.0  # a script that waits in is_running() ends by itself
            while child is not None and child.poll() is None and time.monotonic() < end_at:
                time.sleep(0.02)
            processes.end_group(process.pid, child, STOP_S + SWEEP_S)
            self.place.sweep()

    # --- tasks

    def show(self, blob: bytes) -> Path:
        """Where the program may read a blob of its task."""
        return self.place.show(blob.hex(), self._journal.blobs.path(blob))

    def owns(self, pid: int) -> bool:
        """Whether a process belongs to the present launch: it, or what it has started."""
        with self._condition:
            return self.process is not None and processes.descends(pid, self.process.pid)

    def _hide(self, task: TaskRow) -> None:
        """What is open or mapped stays so."""
        for blob in (*([task.payload] if task.payload is not None else []), *task.more):
            self.place.hide(blob.hex())

    def requeue(self) -> None:
        """After a restart of the agent: tasks that are here and not answered."""
        for task in self._journal.tasks(self.job, READY):
            if task.payload is None or self._journal.blobs.has(task.payload):
                self.deliver(task)  # else, after a reboot, the server pushes it again

    def info(self) -> dict[str, Any]:
        return {
            "job": self.job,
            "config": self.spec.config,
            "data": self.data,
            "metrics": str(self.place.metrics),
            "framework": self.spec.framework,
            "executor": self.spec.executor,
        }
