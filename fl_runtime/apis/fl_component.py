"""FLComponent: what every part of a job can do - log with its context, fire events and hear them."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from fl_runtime.apis.event_type import EventType
from fl_runtime.apis.fl_constant import FLContextKey
from fl_runtime.apis.fl_context import FLContext


class FLComponent:
    """Base of controllers, executors, filters and everything that a job names under `components`."""

    def __init__(self) -> None:
        self._name = self.__class__.__name__
        self.logger = logging.getLogger(f"fedspan.job.{self._name}")

    def _logger(self) -> logging.Logger:
        made = getattr(self, "logger", None)  # a subclass may not call our __init__
        return made if isinstance(made, logging.Logger) else logging.getLogger(f"fedspan.job.{type(self).__name__}")

    @property
    def name(self) -> str:
        return type(self).__name__

    # --- events

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Override to hear events; what it raises is logged and goes no further."""

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Tell all components of this process, this one too."""
        engine = fl_ctx.get_engine()
        if engine is not None:
            engine.fire_event(event_type, fl_ctx)
        else:
            self.handle_event(event_type, fl_ctx)

    def fire_event_with_data(self, event_type: str, fl_ctx: FLContext, data_key: str, data: Any) -> None:
        fl_ctx.set_prop(data_key, data, private=True, sticky=False)
        self.fire_event(event_type, fl_ctx)

    # --- words

    def log_debug(self, fl_ctx: FLContext, msg: str, fire_event: bool = False) -> None:
        self._log(logging.DEBUG, fl_ctx, msg)

    def log_info(self, fl_ctx: FLContext, msg: str, fire_event: bool = False) -> None:
        self._log(logging.INFO, fl_ctx, msg)

    def log_warning(self, fl_ctx: FLContext, msg: str, fire_event: bool = False) -> None:
        self._log(logging.WARNING, fl_ctx, msg)

    def log_error(self, fl_ctx: FLContext, msg: str, fire_event: bool = True) -> None:
        self._log(logging.ERROR, fl_ctx, msg)
        self._told(EventType.ERROR_LOG_AVAILABLE, fl_ctx, msg, fire_event)

    def log_critical(self, fl_ctx: FLContext, msg: str, fire_event: bool = True) -> None:
        self._log(logging.CRITICAL, fl_ctx, msg)
        self._told(EventType.ERROR_LOG_AVAILABLE, fl_ctx, msg, fire_event)

    def log_exception(self, fl_ctx: FLContext, msg: str, fire_event: bool = False) -> None:
        """The message with the exception that is being handled."""
        self._log(logging.ERROR, fl_ctx, f"{msg}\n{traceback.format_exc()}")
        self._told(EventType.EXCEPTION_LOG_AVAILABLE, fl_ctx, msg, fire_event)

    def _log(self, level: int, fl_ctx: FLContext, msg: str) -> None:
        task = fl_ctx.get_prop(FLContextKey.TASK_NAME) if isinstance(fl_ctx, FLContext) else None
        self._logger().log(level, "%s%s: %s", self.name, f" [{task}]" if task else "", msg)

    def _told(self, event: str, fl_ctx: FLContext, msg: str, fire: bool) -> None:
        if fire and isinstance(fl_ctx, FLContext):
            fl_ctx.set_prop(FLContextKey.EVENT_DATA, msg, private=True, sticky=False)
            self.fire_event(event, fl_ctx)

    # --- the end

    def system_panic(self, reason: str, fl_ctx: FLContext) -> None:
        """The job can't go on: it ends FAILED with this reason."""
        self._log(logging.CRITICAL, fl_ctx, reason)
        fl_ctx.set_prop(FLContextKey.EVENT_DATA, reason, private=True, sticky=False)
        self.fire_event(EventType.FATAL_SYSTEM_ERROR, fl_ctx)

    def task_panic(self, reason: str, fl_ctx: FLContext) -> None:
        """This task can't be done."""
        self._log(logging.ERROR, fl_ctx, reason)
        fl_ctx.set_prop(FLContextKey.EVENT_DATA, reason, private=True, sticky=False)
        self.fire_event(EventType.FATAL_TASK_ERROR, fl_ctx)
