"""One simulated site: a thread that runs the job's script, and gives the worker back whenever it waits for a task."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, Protocol

from fl_runtime.client.session import Session
from fl_runtime.simulator.world import World

Frame = tuple[dict[str, Any], bytes]


class Post(Protocol):
    """The worker's way to the simulated server."""

    def ask(self, message: dict[str, Any], binary: bytes = b"") -> Frame: ...
    def send(self, message: dict[str, Any], binary: bytes = b"") -> None: ...


class Site:
    """`offer` a task, then `resume`: it runs until it needs the next one, or ends."""

    def __init__(self, name: str, world: World, info: dict[str, Any], post: Post, run: Callable[[Site], None]) -> None:
        self.name = name
        self.world = world
        self.done = False
        self.code = 0
        self.why = ""
        self.ended = False  # the job is over
        self.answered = False  # a task was answered since the last start
        self._info = info
        self._post = post
        self._run = run
        self._task: Frame | None = None
        self._mine = threading.Semaphore(0)
        self._workers = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    # --- the worker's side

    def offer(self, body: dict[str, Any], binary: bytes) -> None:
        self._task = (body, binary)

    def resume(self, timeout: float | None = None) -> bool:
        """Let it run until it waits or ends; False when it did neither in time."""
        if self._thread is None:
            self.done, self.code, self.why, self.answered = False, 0, "", False
            self._thread = threading.Thread(target=self._main, name=self.name, daemon=True)
            self._thread.start()
        else:
            self._mine.release()
        return self._workers.acquire(timeout=timeout)

    def restart(self) -> None:
        """Forget the thread that has ended; the open task is given again."""
        self._thread = None

    @property
    def waits(self) -> bool:
        return self._thread is not None and not self.done

    # --- the script's thread

    def _main(self) -> None:
        try:
            self._run(self)
        except SystemExit as end:
            self.code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if self.code:
                self.why = str(end.code)
                sys.stderr.write(f"{end.code}\n")
        except BaseException as error:
            traceback.print_exc()
            self.code, self.why = 1, f"{type(error).__name__}: {error}"
        finally:
            self.done = True
            self._workers.release()

    # --- fl_runtime.client.session.Wire

    def attach(self, hello: dict[str, Any]) -> dict[str, Any]:
        return self._info

    def request(self, message: dict[str, Any], binary: bytes) -> Frame:
        op = message.get("op")
        if op == "next":
            return self._next()
        if op == "result":
            reply = self._post.ask({**message, "site": self.name}, binary)
            self._task, self.answered = None, True
            return reply
        return self._post.ask({**message, "site": self.name}, binary)

    def _next(self) -> Frame:
        while self._task is None:
            if self.ended:
                return {"task": None}, b""
            self._workers.release()
            self._mine.acquire()
        body, binary = self._task
        return {"task": body}, binary

    def report(self, items: list[Mapping[str, Any]]) -> None:
        self._post.send({"op": "metric", "items": items, "site": self.name})

    def close(self) -> None:
        """The script has called `shutdown()`: it gets no more tasks."""


def attach(site: Site) -> None:
    """Give the site its session of the Client API."""
    site.world.session = Session(wire=site)


def script_runner(code: CodeType) -> Callable[[Site], None]:
    """Runs compiled code as `__main__` of the site, as `python SCRIPT` would."""

    def run(site: Site) -> None:
        main = site.world.main
        assert main is not None
        main.__dict__["__builtins__"] = __builtins__
        exec(code, main.__dict__)  # noqa: S102 - the job's own script, which is what a simulation is for

    return run


def executor_runner(site: Site) -> None:
    """Runs an executor job's loop."""
    from fl_runtime.apis.host import run_executor  # loaded for such jobs only

    run_executor(site.world.folder)
