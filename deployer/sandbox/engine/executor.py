"""Runs steps: chains of them side by side, as many at once as allowed, each with its events and its entry in the
journal.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from .events import Stream
from .hooks import Hooks
from .journal import Journal
from .problems import InitFailed, ProviderError
from .reading import Import, Refresh
from .steps import Create, Delete, Forget, Same, Step, Update, World
from .values import leak_guard

Chain = list[Step]


class Executor:
    """`stop` lets what runs come to its end and starts nothing new; so does a failure, unless the user wants to go
    on.
    """

    def __init__(
        self, world: World, events: Stream, journal: Journal, hooks: Hooks, parallel: int, *, go_on: bool = False
    ) -> None:
        self.world, self.events, self.journal, self.hooks = world, events, journal, hooks
        self.go_on = go_on
        self.errored: list[Step] = []
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(max(parallel, 1), thread_name_prefix="step")
        self._running: set[Future[None]] = set()
        self._lock = threading.Lock()

    # -- running ---------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def submit(self, chain: Chain, done: Callable[[bool], None] | None = None) -> Future[None]:
        """Starts a chain. `done(True)` comes when every step of it succeeded, `done(False)` when one failed or never
        ran.
        """
        future = self._pool.submit(self._chain, chain, done)
        with self._lock:
            self._running.add(future)
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: Future[None]) -> None:
        with self._lock:
            self._running.discard(future)

    def all(self, steps: Iterable[Step]) -> None:
        """Runs the steps side by side and waits for all."""
        for future in [self.submit([s]) for s in steps]:
            future.result()

    def drain(self) -> None:
        """Waits until nothing runs."""
        while True:
            with self._lock:
                running = set(self._running)
            if not running:
                return
            wait(running)

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _chain(self, chain: Chain, done: Callable[[bool], None] | None) -> None:
        good = True
        for step in chain:
            if self.stopped or not self._run(step):
                good = False
                break
        if done is not None:
            done(good)

    # -- one step --------------------------------------------------------------------------------------------------
    def _run(self, step: Step) -> bool:
        """Does the step; False when it failed."""
        events, preview = self.events, self.world.preview
        if isinstance(step, Create) and step.replacing and not step.retire and step.new is not None:
            step.new.id = ""
        events.begins(step)
        if not preview:
            self.journal.begin(step)
        error: Exception | None = None
        try:
            self.hooks.before(step)
            step.apply(self.world)
            if step.new is not None and not isinstance(step, Same):
                step.new.outputs = leak_guard(step.new.inputs, step.new.outputs, step.new.additional_secret_outputs)
            self.hooks.after(step)
        except (ProviderError, OSError) as problem:
            error = problem
        except Exception as problem:  # a bug: told like a failure, for nothing may be left waiting for the step
            traceback.print_exc()
            error = ProviderError(f"the sandbox's engine failed: {problem!r}")
        if isinstance(error, InitFailed) and step.new is not None:
            step.new.outputs = leak_guard(step.new.inputs, step.new.outputs, step.new.additional_secret_outputs)
        if not preview:
            self.journal.end(step, error)
        if error is None:
            events.ends(step, show=preview or step.resource.custom or isinstance(step, (Delete, Forget, Refresh)))
            if step.answer is not None:
                step.answer(step)
            return True
        events.diagnostic("error", str(error), step.urn)
        if not preview:
            status = self._status(step, error)
            events.corrupt |= status == _UNKNOWN
            events.failed(step, status)
        self.errored.append(step)
        if not self.go_on:
            self.stop()
        return False

    @staticmethod
    def _status(step: Step, error: Exception) -> int:
        """What is known of the resource after the failure: nothing changed, half done, or not known."""
        if isinstance(error, InitFailed):
            return _PARTIAL
        if step.old is not None and step.old.protect and isinstance(step, Delete):
            return _OK
        return _UNKNOWN if isinstance(step, (Update, Delete, Refresh)) and not isinstance(step, Import) else _OK


_OK, _PARTIAL, _UNKNOWN = 0, 1, 2
