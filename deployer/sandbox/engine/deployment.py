"""One deployment: an update, preview, refresh or destroy of a stack, from the first event to the last.

One thread owns all decisions. It takes one happening at a time from a queue: a registration of the program, a diff
that a provider has answered, an import that was read, a component's outputs, the program's end, the user's interrupt.
Steps run on the executor's threads.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from . import urns
from .components import Components
from .difference import Diff
from .endings import delete_unseen
from .events import Stream
from .executor import Executor
from .generator import Generator, Prepared
from .goal import Registration, Result
from .journal import Journal
from .plan import Plan
from .problems import ProviderError, Refused
from .reading import Import
from .refresh import refresh
from .state import Resource
from .steps import Same, Step, Update, World
from .values import Properties, identical

DIFFS_AT_ONCE = 16


@dataclass
class Kind:
    """What sort of deployment it is."""

    program: bool = True  # a program says what is wanted; else nothing is (destroy, refresh)
    refresh: bool = False  # first read what became of everything
    refresh_only: bool = False


@dataclass
class Outcome:
    ok: bool
    canceled: bool = False


@dataclass
class Deployment:
    kind: Kind
    generator: Generator
    executor: Executor
    journal: Journal
    events: Stream
    world: World
    plan: Plan
    components: Components
    start_program: Callable[[], None] = lambda: None
    release_program: Callable[[], None] = lambda: None

    _queue: queue.SimpleQueue[Callable[[], None] | None] = field(default_factory=queue.SimpleQueue)
    _waiting: set[Registration] = field(default_factory=set)
    _root_outputs: tuple[str, Properties] | None = None
    _busy: int = 0  # diffs and chains on their way
    _signalled: bool = False
    _canceled: bool = False
    _failed: bool = False
    _closed: bool = False
    _lost: set[str] = field(default_factory=set)  # URNs that failed, or need such: --continue-on-error
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _diffs: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(DIFFS_AT_ONCE, "diff"))

    # -- what others tell (any thread) --------------------------------------------------------------------------------
    def register(self, registration: Registration) -> None:
        with self._lock:
            closed = self._closed
            if not closed:
                self._waiting.add(registration)
        if closed:
            registration.answer(None)
            return
        self._queue.put(lambda: self._on_registration(registration))

    def outputs(self, urn: str, outputs: Properties) -> None:
        """A component's outputs; the root stack's are kept until everything else is done."""
        if urns.type_of(urn) == urns.STACK_TYPE:
            self._root_outputs = (urn, outputs)
            return
        self._queue.put(lambda: self.components.set_outputs(urn, outputs))

    def signal(self) -> None:
        """The program has registered all it will."""
        self._signalled = True
        self._queue.put(lambda: None)

    def program_ended(self, error: str, bail: bool) -> None:
        def happen() -> None:
            if error and not bail:
                self.events.diagnostic("error", f"an unhandled error occurred: {error}")
            if error or bail:
                self._abandon()
            self._signalled = True

        self._queue.put(happen)

    def cancel(self) -> None:
        """The user wants it to end: what runs is finished, nothing new starts."""
        self._canceled = True
        self.executor.stop()
        self._queue.put(lambda: None)

    # -- the run -----------------------------------------------------------------------------------------------------
    def run(self) -> Outcome:
        """Does all of it. A failure has been told by diagnostics when this returns."""
        good = True
        try:
            if self.kind.refresh:
                good = refresh(self.generator, self.executor, self.journal, self.kind.refresh_only)
            if good and not self.kind.refresh_only and not self._canceled:
                self._update()
        finally:
            self.executor.drain()
        return self._finish(good)

    def _update(self) -> None:
        if self.kind.program:
            self.start_program()
            while not self._over():
                happening = self._queue.get()
                assert happening is not None
                happening()
        if not self.executor.stopped and not self._failed:
            self._failed |= not delete_unseen(
                self.generator, self.executor, self.journal, self.events, self._lost, keep_program=self.kind.program
            )

    def _over(self) -> bool:
        if self._failed or self.executor.stopped:
            return True
        return self._signalled and self._busy == 0 and self._queue.empty()

    def _finish(self, good: bool) -> Outcome:
        bad = self._failed or self._canceled or bool(self.executor.errored) or self.generator.failed
        if self._root_outputs is not None:
            self.components.set_root_outputs(*self._root_outputs, complete=not bad)
        verb = "preview" if self.world.preview else "update"
        failed = bool(self.executor.errored) or self.generator.failed or not good
        if failed:
            self.events.diagnostic("error", f"{verb} failed")
        elif self._canceled and not failed and not self._failed:
            self.events.diagnostic("error", f"{verb} canceled")
        return Outcome(not failed and not self._failed and not self._canceled, self._canceled)

    def _abandon(self) -> None:
        self._failed = True
        self.executor.stop()

    def let_go(self) -> None:
        """Ends the program's waiting. To be called when the last event has been sent: what it logs then is nobody's."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, set()
        for registration in waiting:
            registration.answer(None)
        self.release_program()
        self._diffs.shutdown(wait=False, cancel_futures=True)

    # -- happenings (the deployment's own thread) ----------------------------------------------------------------------
    def _guarded(self, urn: str, act: Callable[[], None]) -> None:
        """Runs a decision; what it refuses is told on the URN and ends the deployment."""
        try:
            act()
        except Refused as error:
            for line in _messages(error):
                self.events.diagnostic("error", line, error.urn or urn)
            self._abandon()
        except ProviderError as error:
            self.events.diagnostic("error", str(error), urn)
            self._abandon()

    def _on_registration(self, registration: Registration) -> None:
        goal = registration.goal
        generator = self.generator
        urn = generator.identities.urn(goal)
        if self._lost and self._needs_lost(registration, urn):
            return

        def act() -> None:
            found = generator.prepare(registration, lambda step: self._answer(registration, step))
            if isinstance(found, Prepared):
                self._compare(found)
            else:
                self._start(registration, found)

        self._guarded(urn, act)

    def _compare(self, prepared: Prepared) -> None:
        """Asks for the diff beside, and goes on when it has come."""
        self._busy += 1

        def ask() -> None:
            try:
                diff: Diff | Exception = self.generator.diff(prepared)
            except Exception as error:  # raised again on the deployment's own thread
                diff = error
            self._queue.put(lambda: self._on_diff(prepared, diff))

        self._diffs.submit(ask)

    def _on_diff(self, prepared: Prepared, diff: Diff | Exception) -> None:
        self._busy -= 1

        def act() -> None:
            if isinstance(diff, Exception):
                raise diff
            steps = self.generator.decide(prepared, diff)
            if prepared.imported and not steps:
                self._answer(prepared.registration, Same(prepared.old, prepared.old))
                return
            self._start(prepared.registration, steps)

        self._guarded(prepared.new.urn, act)

    def _start(self, registration: Registration, steps: list[Step]) -> None:
        for step in steps:
            self.plan.check_step(step)
        importing = next((s for s in steps if isinstance(s, Import)), None)
        if importing is not None:
            importing.answer = None
        self._busy += 1

        def done(good: bool) -> None:
            def happen() -> None:
                self._busy -= 1
                if good and importing is not None:
                    self._guarded(importing.urn, lambda: self._adopted(registration, importing))
                elif not good:
                    self._lose(registration, steps[-1])

            self._queue.put(happen)

        self.executor.submit(steps, done)

    def _adopted(self, registration: Registration, step: Import) -> None:
        """An import was read: now the program's inputs are compared with what is there."""
        old = step.new
        assert old is not None
        wanted = old.copy()
        goal = registration.goal
        wanted.inputs = self.generator.check_imported(old, goal)
        if self.world.preview and not identical(old.outputs, wanted.outputs):
            wanted.outputs = dict(old.outputs)
        prepared = Prepared(registration, wanted, old, lambda s: self._answer(registration, s), imported=True)
        self._compare(prepared)

    def _answer(self, registration: Registration, step: Step) -> None:
        """Tells the program what became of its resource (on the step's thread)."""
        state = step.resource
        if not state.custom:
            self.components.steps[state.urn] = step
        with self._lock:
            self._waiting.discard(registration)
        skipped = isinstance(step, Same) and step.skipped
        stables = step.diff.stable_keys if isinstance(step, Update) else []
        registration.answer(Result(state, stables, isinstance(step, Same), unknown=skipped))

    def _lose(self, registration: Registration, step: Step) -> None:
        """A resource that failed while the rest goes on: the program is told, and its dependents are left out."""
        if not self.executor.go_on or self.executor.stopped:
            return
        self._lost.add(step.urn)
        self.generator.kept.add(step.urn)
        with self._lock:
            self._waiting.discard(registration)
        registration.answer(Result(step.resource, failed=True))

    def _needs_lost(self, registration: Registration, urn: str) -> bool:
        goal = registration.goal
        provider = urns.split_reference(goal.provider)[0] if goal.provider else ""
        if not ({*goal.dependencies, goal.parent, provider, goal.deleted_with} & self._lost):
            return False
        self._lost.add(urn)
        self.generator.kept.add(urn)
        with self._lock:
            self._waiting.discard(registration)
        registration.answer(Result(Resource(urn, goal.type, goal.custom, parent=goal.parent), failed=True))
        return True


def _messages(error: Refused) -> list[str]:
    text = str(error)
    return text.split("\n") if " has a problem: " in text else [text]
