"""A job's Executor on a site: `python -m fl_runtime.apis.host`, started by the agent in the job's folder.

It is one more program of the Client API: its executor gets what a script would get, as a Shareable.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import fl_runtime.client as flare
from fl_runtime.apis import wire
from fl_runtime.apis.event_type import EventType
from fl_runtime.apis.executor import Executor
from fl_runtime.apis.fl_constant import FLContextKey, ReservedKey, ReturnCode
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.impl.engine import Engine
from fl_runtime.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from fl_runtime.apis.signal import Signal
from fl_runtime.client.session import Session, Work
from fl_runtime.errors import FlError
from fl_runtime.job.code import build, build_components

log = logging.getLogger("fedspan.job")


class Host:
    """One executor with the components that job.yml names beside it."""

    def __init__(self, session: Session, bundle: Path) -> None:
        described = session.info["executor"]
        self._session = session
        self._abort = Signal()
        self._tasks = described.get("tasks")
        components = build_components(described.get("components"), "executor.components")
        self._executor = build({key: described.get(key) for key in ("path", "args")}, "executor")
        if not isinstance(self._executor, Executor):
            raise FlError(f"executor.path: {described['path']} is no Executor")
        every = {"executor": self._executor, **components}
        self._engine = Engine(session.info["site"], session.info["job"], bundle, every, list, self._panic)
        self._panicked: str | None = None

    def run(self) -> None:
        """Until the job is over."""
        context = self._engine.new_context()
        context.set_prop(ReservedKey.RUN_ABORT_SIGNAL, self._abort)
        self._engine.fire_event(EventType.ABOUT_TO_START_RUN, context)
        self._engine.fire_event(EventType.START_RUN, context)
        try:
            while self._panicked is None and (work := self._session.work()) is not None:
                self._do(work)
        finally:
            self._engine.fire_event(EventType.ABOUT_TO_END_RUN, context)
            self._engine.fire_event(EventType.END_RUN, context)
        if self._panicked is not None:
            raise FlError("The executor has given up", why=self._panicked)

    def _panic(self, why: str) -> None:
        self._panicked = why

    def end(self) -> None:
        self._abort.trigger("the job is over")

    def _do(self, work: Work) -> None:
        context = self._engine.new_context()
        abort = Signal(self._abort)
        server = FLContext({ReservedKey.IDENTITY_NAME: "server", ReservedKey.JOB_ID: self._session.info["job"]})
        context.set_peer_context(server)
        context.set_prop(FLContextKey.TASK_NAME, work.name, sticky=False)
        context.set_prop(FLContextKey.TASK_ID, work.id, sticky=False)
        data = wire.decode(work.meta, work.source, torch=self._as_torch())
        data.set_header(ReservedHeaderKey.TASK_NAME, work.name)
        data.set_header(ReservedHeaderKey.TASK_ID, work.id)
        data.set_peer_props({ReservedKey.IDENTITY_NAME: "server"})
        context.set_prop(FLContextKey.TASK_DATA, data, sticky=False)
        with self._session.watch(work, lambda: self._aborted(abort, context)):
            self._engine.fire_event(EventType.BEFORE_TASK_EXECUTION, context)
            answer = self._execute(work.name, data, context, abort)
            context.set_prop(FLContextKey.TASK_RESULT, answer, sticky=False)
            self._engine.fire_event(EventType.AFTER_TASK_EXECUTION, context)
        jar = data.get_cookie_jar()
        if jar:
            answer.set_cookie_jar(jar)
        try:
            meta, arrays = wire.encode(answer)
        except TypeError as error:
            log.error("the answer to %s can't travel: %s", work.name, error)
            meta, arrays = wire.encode(make_reply(ReturnCode.EXECUTION_RESULT_ERROR, {"why": str(error)}))
        self._engine.fire_event(EventType.BEFORE_SEND_TASK_RESULT, context)
        self._session.answer(work, meta, arrays)
        self._engine.fire_event(EventType.AFTER_SEND_TASK_RESULT, context)

    def _aborted(self, abort: Signal, context: FLContext) -> None:
        abort.trigger("the task is cancelled")
        self._engine.fire_event(EventType.ABORT_TASK, context)

    def _as_torch(self) -> bool | None:
        framework = self._session.info.get("framework")
        return None if framework is None else framework == "torch"

    def _execute(self, name: str, data: Shareable, context: FLContext, abort: Signal) -> Shareable:
        if self._tasks is not None and name not in self._tasks and "*" not in self._tasks:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        try:
            answer: Any = self._executor.execute(name, data, context, abort)
        except Exception as error:  # the executor's own: the task has failed, not the site
            log.exception("the task %s failed", name)
            return make_reply(ReturnCode.EXECUTION_EXCEPTION, {"why": f"{type(error).__name__}: {error}"})
        if not isinstance(answer, Shareable):
            log.error("execute() must return a Shareable, not %s", type(answer).__name__)
            return make_reply(ReturnCode.EXECUTION_RESULT_ERROR)
        return answer


def run_executor(bundle: Path) -> None:
    """What a site's process does: everything goes through this thread's session of the Client API."""
    flare.init()
    host = Host(flare.current_session(), bundle)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: host.end())
    host.run()


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    sys.path.insert(0, os.getcwd())
    try:
        run_executor(Path.cwd())
    except FlError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
