"""Runs a job's own Controller as a workflow: `workflow: {type: controller, path: mine.MyController, args: {...}}`."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fl_runtime.apis.event_type import EventType
from fl_runtime.apis.fl_component import FLComponent
from fl_runtime.apis.fl_constant import ReservedKey
from fl_runtime.apis.impl.communicator import Communicator
from fl_runtime.apis.impl.controller import Controller
from fl_runtime.apis.impl.engine import Engine
from fl_runtime.apis.signal import Signal
from fl_runtime.errors import FlError, JobSpecError
from fl_runtime.job.code import build, build_components
from fl_runtime.job.resources import parse_bytes
from fl_runtime.workflow.base import Workflow
from fl_runtime.workflow.link import Link
from fl_runtime.workflow.records import Model

log = logging.getLogger("fedspan.workflow")
_JOURNAL = 16 << 30  # bytes of tasks and results that a control flow without rounds may keep for its replay


class ControllerWorkflow(Workflow):
    """Settings: path, args, components (id: {path, args}), model, grace, deadline,
    `journal` (bytes, or "2GB"): while the calls of a control flow without rounds() hold no more, it is replayed from
    its start after a crash; then it can't be resumed, and a crash ends the job with the last model kept."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        if self._done < 0:  # a control flow without rounds begins anew: its checkpoint is for people
            self.model, self.state, self.tensors = None, {}, {}
        self.abort = Signal()
        self._in_rounds = False
        self._bytes = 0
        self._closed: list[int] = []
        self._outgrown = False
        self._quota = parse_bytes(self.settings.get("journal", _JOURNAL))
        self._fatal: str | None = None

    # --- the job

    def run(self) -> None:
        if self._link.hello.get("outgrown"):
            raise FlError(
                "The job is not resumable",
                why="its process was lost, its control flow has no rounds(), and its journal had outgrown"
                f" {self._quota} bytes (workflow.journal); the last model is kept",
                next_step=f"fedspan job download {self.job_id}",
            )
        components = build_components(self.settings.get("components"), "workflow.components")
        controller = build({key: self.settings.get(key) for key in ("path", "args")}, "workflow")
        if not isinstance(controller, Controller):
            raise JobSpecError(f"workflow.path: {self.settings['path']} is neither a Controller nor a Workflow")
        every = {"controller": controller, **components}
        engine = Engine("server", self.job_id, Path(self.bundle), every, self.sites, self._panic)
        communicator = Communicator(self, engine.fl_ctx_mgr)
        controller._communicator, controller._engine = communicator, engine
        os.chdir(self.bundle)
        self._listen()
        context = engine.new_context()
        context.set_prop(ReservedKey.RUN_ABORT_SIGNAL, self.abort)
        communicator.start()
        self.abort._asked = self._asked
        try:
            self._flow(controller, context)
        finally:
            communicator.stop()
        if communicator.failure is not None:
            raise communicator.failure
        if self._fatal is not None:
            raise FlError("The job has given up", why=self._fatal)
        for task in communicator.standing_tasks():
            log.info("the task %s is dropped: the control flow is over", task.name)

    def _flow(self, controller: Controller, context: Any) -> None:
        def fire(event: str) -> None:
            FLComponent.fire_event(controller, event, context)

        fire(EventType.ABOUT_TO_START_RUN)
        fire(EventType.START_RUN)
        controller.initialize(context)
        controller.start_controller(context)
        fire(EventType.START_WORKFLOW)
        try:
            if not self._fatal:
                controller.control_flow(self.abort, context)
        finally:
            controller.stop_controller(context)
        fire(EventType.END_WORKFLOW)
        fire(EventType.ABOUT_TO_END_RUN)
        fire(EventType.END_RUN)

    def _panic(self, why: str) -> None:
        self._fatal = self._fatal or why
        self.abort.trigger(why)

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self.abort.trigger("the job is over"))

    def _asked(self) -> None:
        """A loop that asks for the signal lets results in."""
        if not self.calls.handing_out and self.calls.lock.acquire(blocking=False):
            try:
                self.calls.pump(0.0)
            finally:
                self.calls.lock.release()

    # --- rounds and models

    def rounds(self, count: int) -> Iterator[int]:
        self._in_rounds = True
        try:
            yield from super().rounds(count)
        finally:
            self._in_rounds = False

    def timing(self) -> dict[str, Any]:
        """The job's own settings of how long is waited."""
        return {key: self.settings[key] for key in ("deadline", "grace") if self.settings.get(key) is not None}

    def first_model(self) -> Model | None:
        """That of the last finished round; before one, that of job.yml."""
        return self.model if self.model is not None and self.finished > 0 else self.initial_model()

    def checkpoint(self, model: Model, metrics: dict[str, Any], best: bool = False) -> None:
        """The job's model so far. Inside of rounds it is durable with the round."""
        self.model = model
        if best:
            self.tensors["best"] = model
            self.state["best"] = {"round": self.round if self._in_rounds else None, **metrics}
        if self._in_rounds:
            self.record(**({"metrics": metrics} if metrics else {}))
            return
        self._link.ask(
            {
                "op": "checkpoint",
                "model": model.blob,
                "best": self.tensors["best"].blob if "best" in self.tensors else None,
                "state": self.state,
                "metrics": metrics,
            }
        )

    # --- the journal's size

    def note(self, size: int) -> None:
        """So many bytes are kept for a replay."""
        self._bytes += 0 if self._in_rounds else size

    def closed(self, index: int) -> None:
        """A call is over; when the journal has outgrown its quota, what it holds is released."""
        if self._in_rounds:
            return
        self._closed.append(index)
        if self._bytes > self._quota:
            if not self._outgrown:
                log.warning("the journal has outgrown %d bytes: from now on the job can't be resumed", self._quota)
                self._outgrown = True
            self._link.post({"op": "outgrown", "round": self.calls.round, "closed": self._closed})
            self._closed = []
