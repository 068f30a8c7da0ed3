"""Tasks of controllers, and what a controller must implement."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Any

from fl_runtime.apis.client import Client
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.shareable import Shareable
from fl_runtime.apis.signal import Signal


class TaskCompletionStatus(Enum):
    OK = "ok"
    TIMEOUT = "timeout"
    ERROR = "error"
    CANCELLED = "cancelled"
    ABORTED = "aborted"
    IGNORED = "ignored"
    CLIENT_DEAD = "client_dead"


class SendOrder(Enum):
    """ANY: the first of the targets that is connected. SEQUENTIAL: in the order of the list."""

    ANY = "any"
    SEQUENTIAL = "sequential"


class Task:
    """
    Args:
        name: what the sites' executors know it by.
        data: goes to each target.
        timeout: seconds after which it is closed with the results that are there; 0 = never.
        before_task_sent_cb, after_task_sent_cb, result_received_cb: called with (client_task, fl_ctx).
        task_done_cb: called with (task, fl_ctx).
        operator, secure: taken as FLARE's are; everything travels over mutual TLS here.

    Callbacks run one at a time. After a restart of the server they run again, in the order in which they ran before.
    """

    def __init__(
        self,
        name: str,
        data: Shareable,
        props: dict[str, Any] | None = None,
        timeout: int | float = 0,
        before_task_sent_cb: Callable[[ClientTask, FLContext], None] | None = None,
        after_task_sent_cb: Callable[[ClientTask, FLContext], None] | None = None,
        result_received_cb: Callable[[ClientTask, FLContext], None] | None = None,
        task_done_cb: Callable[[Task, FLContext], None] | None = None,
        operator: Any = None,
        secure: bool = False,
    ) -> None:
        if not isinstance(name, str) or not isinstance(data, Shareable):
            raise TypeError("a Task takes a name and a Shareable")
        if not isinstance(timeout, (int, float)) or timeout < 0:
            raise ValueError(f"timeout must be seconds, 0 or more, not {timeout!r}")
        self.name = name
        self.data = data
        self.props: dict[str, Any] = dict(props or {})
        self.timeout = timeout
        self.before_task_sent_cb = before_task_sent_cb
        self.after_task_sent_cb = after_task_sent_cb
        self.result_received_cb = result_received_cb
        self.task_done_cb = task_done_cb
        self.operator = operator
        self.secure = secure
        self.task_id = str(uuid.uuid4())
        self.targets: list[str] | None = None
        self.client_tasks: list[ClientTask] = []
        self.last_client_task_map: dict[str, ClientTask] = {}
        self.completion_status: TaskCompletionStatus | None = None
        self.exception: BaseException | None = None
        self.create_time = time.time()
        self.schedule_time: float | None = None

    def set_prop(self, key: str, value: Any) -> None:
        self.props[key] = value

    def get_prop(self, key: str, default: Any = None) -> Any:
        return self.props.get(key, default)

    @property
    def is_standing(self) -> bool:
        return self.completion_status is None


class ClientTask:
    """A task's part for one site."""

    def __init__(self, client: Client, task: Task) -> None:
        self.client = client
        self.task = task
        self.id = str(uuid.uuid4())
        self.task_sent_time: float | None = None
        self.result_received_time: float | None = None
        self.result: Shareable | None = None
        self.props: dict[str, Any] = {}

    def set_prop(self, key: str, value: Any) -> None:
        self.props[key] = value

    def get_prop(self, key: str, default: Any = None) -> Any:
        return self.props.get(key, default)


class ControllerSpec(ABC):
    """What own controllers implement. All of it runs in the job's process on the server."""

    @abstractmethod
    def start_controller(self, fl_ctx: FLContext) -> None:
        """Called once before the control flow."""

    @abstractmethod
    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """The algorithm; the job is finished when it returns."""

    @abstractmethod
    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Called once after the control flow, whatever became of it."""

    def process_result_of_unknown_task(  # noqa: B027 - may be overridden, need not
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """FLARE's hook for results that come after their task is over; here the server drops them itself."""
