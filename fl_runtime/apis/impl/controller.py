"""Controller: base of own algorithms in FLARE's style. Its calls are journalled; see `workflow/calls.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fl_runtime.apis.controller_spec import ControllerSpec, SendOrder, Task, TaskCompletionStatus
from fl_runtime.apis.fl_component import FLComponent
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.impl.communicator import Communicator
from fl_runtime.apis.signal import Signal

Targets = list[Any] | None  # names or Clients; None = all sites that take part


class Controller(FLComponent, ControllerSpec):
    """Override `start_controller`, `control_flow` and `stop_controller`.

    Beyond FLARE: `for rnd in self.rounds(n):` commits each round, so that a restart goes on with the next one;
    `self.state` (plain data) is committed with it, `self.rng` and `self.now()` give the same in a replay,
    `self.save_model()` keeps a model and `self.load_model()` gives the last one.
    """

    def __init__(self, task_check_period: float = 0.2) -> None:
        super().__init__()
        self._task_check_period = task_check_period
        self._communicator: Communicator | None = None
        self._engine: Any = None  # set before `initialize`

    @property
    def communicator(self) -> Communicator:
        made: Communicator | None = self.__dict__.get("_communicator")  # a subclass may not call our __init__
        if made is None:
            raise RuntimeError("a controller works inside a job only: name it in job.yml under `workflow`")
        return made

    # --- FLARE's hooks, none of which must be overridden

    def start_controller(self, fl_ctx: FLContext) -> None: ...

    def stop_controller(self, fl_ctx: FLContext) -> None: ...

    def initialize(self, fl_ctx: FLContext) -> None: ...

    # --- calls

    def broadcast(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        min_responses: int = 0,
        wait_time_after_min_received: int | float = 0,
    ) -> None:
        """Send the task to all targets and go on; its callbacks tell the results.

        Args:
            min_responses: results that are enough; 0 = of all targets that are not lost.
            wait_time_after_min_received: seconds to wait for the others then.
        """
        self.communicator.broadcast(task, targets, min_responses, wait_time_after_min_received)

    def broadcast_and_wait(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        min_responses: int = 0,
        wait_time_after_min_received: int | float = 0,
        abort_signal: Signal | None = None,
    ) -> None:
        """As `broadcast`, and wait until the task is over or the signal is triggered."""
        self.broadcast(task, fl_ctx, targets, min_responses, wait_time_after_min_received)
        self.wait_for_task(task, abort_signal)

    def send(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        send_order: SendOrder = SendOrder.SEQUENTIAL,
        task_assignment_timeout: int | float = 0,
    ) -> None:
        """Send the task to one site: the first target, or the next one when that is lost for
        `task_assignment_timeout` seconds (0: the job's grace)."""
        self.communicator.send(task, targets, send_order, task_assignment_timeout)

    def send_and_wait(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        send_order: SendOrder = SendOrder.SEQUENTIAL,
        task_assignment_timeout: int | float = 0,
        abort_signal: Signal | None = None,
    ) -> None:
        self.send(task, fl_ctx, targets, send_order, task_assignment_timeout)
        self.wait_for_task(task, abort_signal)

    def relay(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        send_order: SendOrder = SendOrder.SEQUENTIAL,
        task_assignment_timeout: int | float = 0,
        task_result_timeout: int | float = 0,
        dynamic_targets: bool = True,
    ) -> None:
        """Send the task to one target after the other. `result_received_cb` may set `client_task.task.data` for the
        next one; a target that stays lost is passed over."""
        self.communicator.relay(task, targets, send_order, task_assignment_timeout, task_result_timeout)

    def relay_and_wait(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        send_order: SendOrder = SendOrder.SEQUENTIAL,
        task_assignment_timeout: int | float = 0,
        task_result_timeout: int | float = 0,
        dynamic_targets: bool = True,
        abort_signal: Signal | None = None,
    ) -> None:
        self.relay(task, fl_ctx, targets, send_order, task_assignment_timeout, task_result_timeout)
        self.wait_for_task(task, abort_signal)

    def wait_for_task(self, task: Task, abort_signal: Signal | None = None) -> None:
        self.communicator.wait(task, abort_signal)

    def cancel_task(
        self,
        task: Task,
        completion_status: TaskCompletionStatus = TaskCompletionStatus.CANCELLED,
        fl_ctx: FLContext | None = None,
    ) -> None:
        """Close it with the results that are there; sites that are at it are told to stop."""
        self.communicator.cancel(task, completion_status)

    def abort_task(self, task: Task, fl_ctx: FLContext | None = None) -> None:
        self.cancel_task(task, TaskCompletionStatus.ABORTED, fl_ctx)

    def cancel_all_tasks(
        self,
        completion_status: TaskCompletionStatus = TaskCompletionStatus.CANCELLED,
        fl_ctx: FLContext | None = None,
    ) -> None:
        for task in self.communicator.standing_tasks():
            self.cancel_task(task, completion_status, fl_ctx)

    def abort_all_tasks(self, fl_ctx: FLContext | None = None) -> None:
        self.cancel_all_tasks(TaskCompletionStatus.ABORTED, fl_ctx)

    def get_num_standing_tasks(self) -> int:
        """Tasks that are not over; results that are here are handed to the callbacks first."""
        return self.communicator.poll()

    # --- beyond FLARE

    def rounds(self, count: int) -> Iterator[int]:
        """The rounds still to be done, from 0 to count - 1; each is committed when its body is through."""
        return self.communicator.workflow.rounds(count)

    @property
    def state(self) -> dict[str, Any]:
        """Plain data that is committed with each round."""
        return self.communicator.workflow.state

    @property
    def rng(self) -> Any:
        """A numpy Generator: the same numbers in a replay."""
        return self.communicator.workflow.rng

    def now(self) -> float:
        """Unix seconds; in a replay what it was then."""
        return self.communicator.workflow.now()

    def record(self, **metrics: Any) -> None:
        """Plain data for the job's history."""
        self.communicator.workflow.record(**metrics)

    def save_model(self, weights: dict[str, Any], metrics: dict[str, float] | None = None, best: bool = False) -> None:
        """Keep a model (name -> array) as the job's last, and with `best` as its best one too."""
        self.communicator.models.save(weights, metrics or {}, best)

    def load_model(self) -> dict[str, Any] | None:
        """The weights of the last committed model, else of job.yml's `workflow.model`; None when there are none."""
        return self.communicator.models.load()
