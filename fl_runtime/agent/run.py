"""One job on this site: its process, its tasks, its log."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_runtime import processes
from fl_runtime.agent.interpreter import Interpreter, own_interpreter
from fl_runtime.agent.journal import READY, Journal, TaskRow
from fl_runtime.agent.place import SWEEP_S, Place
from fl_runtime.agent.ranks import Current
from fl_runtime.client.session import EPOCH, JOB, SOCKET
from fl_runtime.errors import FlError
from fl_runtime.job.spec import JobSpec
from fl_runtime.names import STOP_S
from fl_runtime.patience import AGAIN_S, again, is_full
from fl_runtime.tail import last_lines

log = logging.getLogger("fedspan.agent")

MAX_RESTARTS = 3  # of a script that fails, without a finished task between
AGENT_GONE = 75  # the exit code of a script whose agent did not come back


class Run:
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
        self.job = job
        self.spec = spec
        self.place = place
        self.data = data
        self.log_path = place.log
        self.epoch = 0
        self.over = False
        self.gpus: tuple[str, ...] = ()  # what CUDA_VISIBLE_DEVICES names
        self.memory = 0  # bytes it may use; 0 = as many as there are
        self.world = 1  # ranks of the script, as torchrun's WORLD_SIZE says
        self.log_lock = threading.Lock()
        self.log_offset: int | None = None  # what the server has; None until it said so
        self._journal = journal
        self._on_end = on_end
        self._interpreter = interpreter
        self._condition = threading.Condition()
        self._ready: deque[TaskRow] = deque()
        self._current: Current | None = None
        self._cancelled: set[str] = set()
        self._clients: dict[int, int] = {}  # rank -> pid of the process that is attached as it
        self._others = False  # a rank beside 0 has attached to this launch
        self._due: list[Callable[[], None]] = []  # see `afterwards`
        self._failures = 0
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
            if self._current is not None and not self._current.done:
                self._ready.appendleft(self._current.task)
            self._replace(None)
            self._others = False
            self._condition.notify_all()
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

    def deliver(self, task: TaskRow) -> None:
        """A task whose content is here."""
        with self._condition:
            known = [entry.id for entry in self._ready]
            if self._current is not None:
                known.append(self._current.task.id)
            if task.id not in known:
                self._ready.append(task)
                self._condition.notify_all()

    def begun(self, task_id: str) -> bool:
        """The script has the task."""
        with self._condition:
            return self._current is not None and self._current.task.id == task_id

    @property
    def at_work(self) -> str | None:
        """The task that the script has."""
        with self._condition:
            return self._current.task.id if self._current is not None and not self._current.done else None

    def cancel(self, task_id: str) -> None:
        with self._condition:
            self._ready = deque(task for task in self._ready if task.id != task_id)
            self._cancelled.add(task_id)
            self._condition.notify_all()

    def wait_cancelled(self, task_id: str) -> bool:
        """Block while the task is at work; True when it was cancelled, or the job has ended."""
        with self._condition:
            while not self.over and task_id not in self._cancelled:
                if self._current is None or self._current.task.id != task_id or self._current.done:
                    return False
                self._condition.wait()
            self._cancelled.discard(task_id)
            return True

    def owns(self, pid: int) -> bool:
        """Whether a process belongs to the present launch: it, or what it has started."""
        with self._condition:
            return self.process is not None and processes.descends(pid, self.process.pid)

    def enter(self, rank: int, pid: int) -> int | None:
        """A process attaches as this rank; the process that is in its place, if that lives."""
        with self._condition:
            other = self._clients.get(rank)
            if other is not None and other != pid and processes.is_running(other):
                return other
            self._clients[rank] = pid
            self._others = self._others or rank != 0
            return None

    def leave(self, rank: int, pid: int) -> None:
        with self._condition:
            if self._clients.get(rank) == pid:
                del self._clients[rank]

    def next_task(self, rank: int, epoch: int, after: str | None, timeout: float | None = None) -> TaskRow | None:
        """Block until there is a task for this rank; None when the job is over.

        Rank 0 takes the next task when the last one is answered and every rank is through with it, that is has asked
        for the one after it; the other ranks follow.

        Raises:
            RuntimeError: the process is of an older launch.
            TimeoutError: there was none within `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        try:
            with self._condition:
                while not self.over:
                    if epoch != self.epoch:
                        raise RuntimeError("this process is of an older launch of the job")
                    task = self._first() if rank == 0 else self._follow(rank, after)
                    if task is not None:
                        return task
                    if until is not None and time.monotonic() >= until:
                        raise TimeoutError
                    left = None if until is None else max(0.0, until - time.monotonic())
                    if rank == 0 and self._ready:  # others are waited for, but not for ever
                        left = 1.0 if left is None else min(1.0, left)
                    self._condition.wait(left)
                return None
        finally:
            self._do_due()

    def _first(self) -> TaskRow | None:
        """What rank 0 has to do now."""
        current = self._current
        if self._ready and (current is None or current.is_over(self.world, self._others)):
            if current is not None and len(current.through) < self.world - 1:
                log.warning("%s: only rank 0 of %d uses the Client API", self.job, self.world)
            current = Current(self._ready.popleft(), self.epoch)
            self._replace(current)
            self._condition.notify_all()
        return current.task if current is not None and not current.done else None

    def _follow(self, rank: int, after: str | None) -> TaskRow | None:
        """What another rank has to do now: what rank 0 has, or has had."""
        current = self._current
        if current is None:
            return None
        if current.task.id != after:
            return current.task if not current.done or current.epoch == self.epoch else None
        if rank not in current.through:
            current.through.add(rank)
            if current.is_over(self.world, self._others):
                self._due += current.afterwards
                current.afterwards = []
            self._condition.notify_all()
        return None

    def _replace(self, current: Current | None) -> None:
        if self._current is not None:
            self._due += self._current.afterwards
        self._current = current

    def holds(self, task_id: str) -> bool:
        """Some ranks are not through with the task."""
        with self._condition:
            current = self._current
            if current is None or current.task.id != task_id or self.over:
                return False
            return not current.is_over(self.world, self._others)

    def afterwards(self, task_id: str, action: Callable[[], None]) -> None:
        """Do it when every rank is through with the task: at once, unless some are not."""
        with self._condition:
            if self._current is not None and self.holds(task_id):
                self._current.afterwards.append(action)
                return
        action()

    def _do_due(self) -> None:
        with self._condition:
            due, self._due = self._due, []
        for action in due:
            action()

    def _hide(self, task: TaskRow) -> None:
        """What is open or mapped stays so."""
        for blob in (*([task.payload] if task.payload is not None else []), *task.more):
            self.place.hide(blob.hex())

    def answered(self, task_id: str) -> None:
        """The task's result is committed."""
        with self._condition:
            self._failures = 0
            self._ready = deque(task for task in self._ready if task.id != task_id)
            if self._current is not None and self._current.task.id == task_id:
                task = self._current.task
                self._current.done_at = time.monotonic()
                self.afterwards(task_id, lambda: self._hide(task))
            self._condition.notify_all()

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
