"""Short cut: everything that a controller's module needs."""

from fl_runtime.apis.controller_spec import ClientTask, SendOrder, Task, TaskCompletionStatus
from fl_runtime.apis.impl.controller import Controller

__all__ = ["ClientTask", "Controller", "SendOrder", "Task", "TaskCompletionStatus"]
