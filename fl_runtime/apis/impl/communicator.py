"""Between a controller and the journalled calls of its workflow: tasks, callbacks, relays."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fl_runtime.apis import wire
from fl_runtime.apis.client import Client
from fl_runtime.apis.controller_spec import ClientTask, SendOrder, Task, TaskCompletionStatus
from fl_runtime.apis.fl_constant import FLContextKey, ReservedKey
from fl_runtime.apis.fl_context import FLContext, FLContextManager
from fl_runtime.apis.impl.contents import COOKIES, Content, contents_of
from fl_runtime.apis.impl.judging import fault_of
from fl_runtime.apis.impl.models import Models
from fl_runtime.apis.shareable import ReservedHeaderKey, Shareable
from fl_runtime.apis.signal import Signal
from fl_runtime.errors import FlError
from fl_runtime.workflow.calls import OpenCall
from fl_runtime.workflow.link import HubGoneError
from fl_runtime.workflow.records import Result

if TYPE_CHECKING:
    from fl_runtime.apis.impl.hosting import ControllerWorkflow

log = logging.getLogger("fedspan.job")
Done = Callable[[Task, list[OpenCall]], None]
_IDLE_S = 0.3  # without a question from the controller, after which results are handed out from another thread


@dataclass(eq=False)
class _Standing:
    """A task that is not over. It has several calls where sites get different content."""

    task: Task
    calls: list[OpenCall] = field(default_factory=list)
    status: TaskCompletionStatus | None = None  # why it was cancelled


class Communicator:
    """All tasks of one controller. Callbacks run one at a time: while the controller waits or asks; else, when it is
    busy with something that does not ask, in a thread of their own."""

    def __init__(self, workflow: ControllerWorkflow, contexts: FLContextManager) -> None:
        self.workflow = workflow
        self.failure: BaseException | None = None
        self._contexts = contexts
        self._calls = workflow.calls
        self._open: dict[str, _Standing] = {}  # by task id
        self.models = Models(workflow)
        self._stopped = threading.Event()

    # --- calls

    def broadcast(self, task: Task, targets: Any, least: int, wait_after: float) -> None:
        names = _names(targets) if targets is not None else self.workflow.sites()
        settings: dict[str, Any] = {"min": min(least, len(names)) if least else 0, **self.workflow.timing()}
        if least:
            settings["after_min"] = float(wait_after)
        with self._calls.lock:
            self._register(task, names)
            self._make(task, names, settings, self._done)

    def send(self, task: Task, targets: Any, order: SendOrder, timeout: float) -> None:
        self._visit(task, self._in_order(targets, order), timeout, 0.0, only_one=True)

    def relay(self, task: Task, targets: Any, order: SendOrder, timeout: float, result_timeout: float) -> None:
        self._visit(task, self._in_order(targets, order), timeout, result_timeout, only_one=False)

    def _in_order(self, targets: Any, order: SendOrder) -> list[str]:
        present = self.workflow.sites()
        names = _names(targets) if targets is not None else present
        if order == SendOrder.ANY:
            names = sorted(names, key=lambda name: name not in present)
        return names

    def _visit(self, task: Task, names: list[str], timeout: float, result_timeout: float, only_one: bool) -> None:
        """One site after the other; each hop is a call of its own."""
        left = list(names)

        def hop() -> None:
            if not left:
                self._finish(task, TaskCompletionStatus.OK if task.client_tasks else TaskCompletionStatus.CLIENT_DEAD)
                return
            settings: dict[str, Any] = {"min": 0, **self.workflow.timing()}
            if timeout:
                settings["grace"] = float(timeout)
            if result_timeout:
                settings["deadline"] = float(result_timeout)
            self._make(task, [left.pop(0)], settings, after)

        def after(_: Task, calls: list[OpenCall]) -> None:
            status = self._open[task.task_id].status
            if status is not None or task.completion_status is not None:
                self._finish(task, status or TaskCompletionStatus.ERROR)
            elif only_one and calls[0].results:
                self._finish(task, TaskCompletionStatus.OK)
            else:
                hop()

        with self._calls.lock:
            self._register(task, names)
            hop()

    def _register(self, task: Task, names: list[str]) -> None:
        if task.schedule_time is not None:
            raise ValueError(f"the task {task.name!r} was scheduled before: make a new Task for each call")
        task.targets, task.schedule_time = list(names), time.time()
        self._open[task.task_id] = _Standing(task)

    def _make(self, task: Task, names: list[str], settings: dict[str, Any], done: Done) -> None:
        """Ask the sites; one call for all that get the same."""
        parts = {name: ClientTask(Client(name), task) for name in names}
        contents = contents_of(task, parts, self._callback)
        standing = self._open[task.task_id]
        standing.calls = []
        if task.timeout:
            settings["deadline"] = float(task.timeout)
        least, after = settings["min"], settings.get("after_min", 0.0)
        if len(contents) > 1:  # each call has a site or some only: what is enough is counted here
            settings = {**settings, "min": 0}
            settings.pop("after_min", None)

        def took(result: Result) -> None:
            part = parts[result.site]
            part.result, part.result_received_time = self._shareable(task, result), time.time()
            cookies = part.props.pop(COOKIES, None)  # a script's answer knows nothing of them
            if cookies and not part.result.get_cookie_jar():
                part.result.set_cookie_jar(cookies)
            task.client_tasks.append(part)
            task.last_client_task_map[result.site] = part
            self.workflow.note(result.size)
            self._callback(task.result_received_cb, task, part, result.site)
            if len(contents) > 1 and least and len(task.client_tasks) == least:
                self._enough(task, after)

        def closed(call: OpenCall) -> None:
            self.workflow.closed(call.index)
            if all(made.outcome is not None for made in standing.calls):
                done(task, list(standing.calls))

        for content in contents:
            standing.calls.append(self._call(task, content, settings, took, closed))
        for part in parts.values():
            part.task_sent_time = time.time()
            self._callback(task.after_task_sent_cb, task, part, part.client.name)

    def _call(
        self,
        task: Task,
        content: Content,
        settings: dict[str, Any],
        took: Callable[[Result], None],
        closed: Callable[[OpenCall], None],
    ) -> OpenCall:
        model = self.models.keep(content.arrays) if content.arrays else None
        whole = model is not None and content.meta["params_type"] == "FULL"
        call = self._calls.open(
            task.name,
            model.blob if model else None,
            content.meta,
            targets=content.sites,
            settings=settings,
            judge=fault_of(model if whole else None),
            on_result=took,
            on_closed=closed,
        )
        if model is not None:
            self.workflow.note(model.size)
            if whole:
                self.models.sent(model, content.meta)
        return call

    def _enough(self, task: Task, after: float) -> None:
        """The rest is waited for so many seconds more."""
        if after <= 0:
            self.cancel(task, TaskCompletionStatus.OK)
            return
        timer = threading.Timer(after, self.cancel, (task, TaskCompletionStatus.OK))
        timer.daemon = True
        timer.start()

    def _shareable(self, task: Task, result: Result) -> Shareable:
        made = wire.decode(result.meta, result.source)
        made.set_header(ReservedHeaderKey.TASK_NAME, task.name)
        made.set_peer_props({ReservedKey.IDENTITY_NAME: result.site, ReservedKey.CLIENT_NAME: result.site})
        return made

    # --- results and the end of tasks

    def context(self, site: str | None = None) -> FLContext:
        """A new context; with a site, that site is the peer."""
        made = self._contexts.new_context()
        if site is not None:
            peer = FLContext({ReservedKey.IDENTITY_NAME: site, ReservedKey.CLIENT_NAME: site})
            peer.set_prop(ReservedKey.JOB_ID, self.workflow.job_id, sticky=False)
            made.set_peer_context(peer)
        return made

    def _callback(self, callback: Any, task: Task, subject: Any, site: str | None) -> None:
        if callback is None:
            return
        context = self.context(site)
        context.set_prop(FLContextKey.TASK_NAME, task.name, sticky=False)
        try:
            callback(subject, context)
        except (FlError, HubGoneError):
            raise
        except Exception as error:  # the controller's own: the task has failed, not the job
            log.exception("a callback of the task %s failed", task.name)
            task.exception = error
            self.cancel(task, TaskCompletionStatus.ERROR)

    def _done(self, task: Task, calls: list[OpenCall]) -> None:
        status = self._open[task.task_id].status
        if status is None:
            outcomes = [call.outcome for call in calls if call.outcome is not None]
            late = any("deadline" in outcome["why"] for outcome in outcomes)
            failed = any(outcome["verdict"] == "fail" for outcome in outcomes)
            status = TaskCompletionStatus.CLIENT_DEAD if failed else TaskCompletionStatus.OK
            if late and (failed or task.timeout):
                status = TaskCompletionStatus.TIMEOUT
        self._finish(task, status)

    def _finish(self, task: Task, status: TaskCompletionStatus) -> None:
        self._open.pop(task.task_id, None)
        if task.completion_status is None:
            task.completion_status = status
        self._callback(task.task_done_cb, task, task, None)

    def cancel(self, task: Task, status: TaskCompletionStatus) -> None:
        with self._calls.lock:
            standing = self._open.get(task.task_id)
            if standing is None:
                return
            standing.status = standing.status or status
            for call in standing.calls:
                self._calls.cancel(call, status.value)

    # --- waiting

    def wait(self, task: Task, abort_signal: Signal | None) -> None:
        while task.task_id in self._open:
            if abort_signal is not None and abort_signal.triggered:
                self.cancel(task, TaskCompletionStatus.ABORTED)
                return
            self._calls.pump(0.2, blocking=True)
            self._raise()

    def poll(self) -> int:
        """How many tasks stand, after what is here was handed out."""
        while not self._calls.handing_out and self._calls.pump(0.0):
            pass
        self._raise()
        return len(self.standing_tasks())

    def standing_tasks(self) -> list[Task]:
        return [standing.task for standing in list(self._open.values())]

    def _raise(self) -> None:
        if self.failure is not None:
            raise self.failure

    def start(self) -> None:
        """For controllers that wait without asking (for an event that a callback sets)."""
        threading.Thread(target=self._help, name="callbacks", daemon=True).start()

    def _help(self) -> None:
        while not self._stopped.wait(_IDLE_S / 3):
            if not self._open or time.monotonic() - self._calls.last_taken < _IDLE_S:
                continue
            if not self._calls.lock.acquire(blocking=False):
                continue
            try:
                while self._calls.pump(0.0):
                    pass
            except BaseException as error:
                self.failure = error
                self.workflow.abort.trigger(error)
                return
            finally:
                self._calls.lock.release()

    def stop(self) -> None:
        self._stopped.set()


def _names(targets: Iterable[Any]) -> list[str]:
    return [target.name if isinstance(target, Client) else str(target) for target in targets]
