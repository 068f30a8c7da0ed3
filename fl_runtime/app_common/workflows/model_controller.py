"""ModelController: a Controller whose algorithm is one function, `run()`, over FLModels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from fl_runtime.apis.controller_spec import ClientTask, Task
from fl_runtime.apis.fl_constant import ReturnCode
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.impl.controller import Controller
from fl_runtime.apis.signal import Signal
from fl_runtime.app_common.app_constant import AppConstants
from fl_runtime.app_common.utils.fl_model_utils import FLModelUtils
from fl_runtime.client.model import FLModel


class ModelController(Controller):
    """Override `run()`.

    Args:
        persistor_id, ignore_result_error, allow_empty_global_model, task_check_period: taken as FLARE's are; models are
            loaded from and kept in the job's own store here.
    """

    def __init__(
        self,
        persistor_id: str = "",
        ignore_result_error: bool | None = None,
        allow_empty_global_model: bool = False,
        task_check_period: float = 0.5,
    ) -> None:
        super().__init__(task_check_period)
        self.ignore_result_error = ignore_result_error
        self.allow_empty_global_model = allow_empty_global_model
        self.current_round: int | None = None

    @abstractmethod
    def run(self) -> None:
        """The algorithm."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        self._fl_ctx, self._abort_signal = fl_ctx, abort_signal
        self.run()

    # --- asking

    def send_model_and_wait(
        self,
        task_name: str = AppConstants.TASK_TRAIN,
        data: FLModel | None = None,
        targets: list[str] | None = None,
        timeout: float = 0,
        wait_time_after_min_received: float = 0,
    ) -> list[FLModel]:
        """Send a model to sites (all that take part by default); their answers, in site-name order, each with its
        site's name in `meta["client_name"]`."""
        found: dict[str, FLModel] = {}
        task = self._task(task_name, data, timeout, lambda model: found.update({str(model.meta["client_name"]): model}))
        self.broadcast_and_wait(
            task,
            self._fl_ctx,
            targets,
            len(targets) if targets is not None else 0,
            wait_time_after_min_received,
            self._abort_signal,
        )
        return [found[site] for site in sorted(found)]

    def send_model(
        self,
        task_name: str = AppConstants.TASK_TRAIN,
        data: FLModel | None = None,
        targets: list[str] | None = None,
        timeout: float = 0,
        wait_time_after_min_received: float = 0,
        callback: Callable[[FLModel], None] | None = None,
    ) -> None:
        """As `send_model_and_wait`, without waiting: `callback` gets each answer. See `wait_for_tasks`."""
        self.broadcast(
            self._task(task_name, data, timeout, callback),
            self._fl_ctx,
            targets,
            len(targets) if targets is not None else 0,
            wait_time_after_min_received,
        )

    def wait_for_tasks(self) -> None:
        """Until what `send_model` has sent is answered, or the job ends."""
        for task in self.communicator.standing_tasks():
            self.wait_for_task(task, self._abort_signal)

    def _task(
        self, name: str, data: FLModel | None, timeout: float, callback: Callable[[FLModel], None] | None
    ) -> Task:
        model = data if data is not None else FLModel(params={})
        if self.current_round is not None and model.current_round is None:
            model.current_round = self.current_round

        def came(client_task: ClientTask, fl_ctx: FLContext) -> None:
            result, site = client_task.result, client_task.client.name
            assert result is not None
            if result.get_return_code() != ReturnCode.OK:
                self.warning(f"the result of {site} does not count: {result.get_return_code()}")
                if self.ignore_result_error is False:
                    self.panic(f"{site} answered {result.get_return_code()} to {name}")
                return
            answer = FLModelUtils.from_shareable(result)
            answer.meta.update(client_name=site, current_round=self.current_round)
            if callback is not None:
                callback(answer)

        return Task(name, FLModelUtils.to_shareable(model), timeout=timeout, result_received_cb=came)

    def sample_clients(self, num_clients: int | None = None) -> list[str]:
        """Names of sites that take part now; with a number so many of them, drawn with the job's own generator."""
        names = sorted(client.name for client in self._engine.get_clients())
        if num_clients is None or num_clients >= len(names):
            return names
        return sorted(self.rng.choice(names, num_clients, replace=False).tolist())

    # --- models

    def load_model(self) -> FLModel:  # type: ignore[override]  # FLARE's: a model, not its arrays
        """The last committed model, else job.yml's `workflow.model`."""
        params = super().load_model()
        if params is None and not self.allow_empty_global_model:
            self.panic("the job has no first model: set workflow.model in job.yml")
        return FLModel(params_type="FULL", params=params or {})

    def save_model(self, model: FLModel) -> None:  # type: ignore[override]
        """The job's model from now on."""
        super().save_model(dict(model.params or {}), dict(model.metrics or {}))

    # --- words

    @property
    def fl_ctx(self) -> FLContext:
        return self._fl_ctx

    @property
    def abort_signal(self) -> Signal:
        return self._abort_signal

    def get_component(self, component_id: str) -> Any:
        return self._engine.get_component(component_id)

    def event(self, event_type: str) -> None:
        self.fire_event(event_type, self._fl_ctx)

    def debug(self, message: str) -> None:
        self.log_debug(self._fl_ctx, message)

    def info(self, message: str) -> None:
        self.log_info(self._fl_ctx, message)

    def warning(self, message: str) -> None:
        self.log_warning(self._fl_ctx, message)

    def error(self, message: str) -> None:
        self.log_error(self._fl_ctx, message)

    def exception(self, message: str) -> None:
        self.log_exception(self._fl_ctx, message)

    def panic(self, reason: str) -> None:
        self.system_panic(reason, self._fl_ctx)
