"""Executor: what a site does when a task comes."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fl_runtime.apis.fl_component import FLComponent
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.shareable import Shareable
from fl_runtime.apis.signal import Signal


class Executor(FLComponent, ABC):
    """Named in job.yml: `executor: {path: mine.MyExecutor, args: {...}, tasks: [train]}`."""

    @abstractmethod
    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Do one task.

        Args:
            shareable: what the controller sent; its arrays are private maps of a file, to be changed at will.
            abort_signal: triggered when the task is cancelled or the job ends: return soon.

        Returns:
            The answer, for example `make_reply(ReturnCode.OK)` or a DXO's `to_shareable()`.
        """
