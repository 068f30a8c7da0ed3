"""One participant's stack, driven by Pulumi's Automation API. The same for the real engine and for its stand-in.

Each stack has a working folder of its own under `.fedspan/stacks/work` (two stacks in one folder race for its
workspace file), one backend for all (files under `.fedspan/stacks/state`, or any Pulumi backend by URL), and secrets
encrypted with the passphrase in `.fedspan/stacks/passphrase`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pulumi import automation as auto

from deployer.checkpoint import stack_outputs
from deployer.drift import Drift, DriftCollector
from deployer.engine_command import EngineCommand
from deployer.engine_events import Collector, Step
from deployer.engine_home import EngineHome
from deployer.engine_stack import Stack, Workspace
from deployer.errors import Interrupted, RefusedError
from deployer.failures import from_diagnostics, too_slow
from deployer.interrupts import Interrupts
from deployer.locks import forget_locks, lock_folder
from deployer.plan import is_rule
from deployer.realm import Realm
from deployer.watchdog import Watchdog, deadline_of

Program = Callable[[], None]


@dataclass(frozen=True)
class Preview:
    """What the engine would do: one step for each resource that would change."""

    steps: tuple[Step, ...]
    plan_file: Path | None = None


def destructive(steps: Iterable[Step]) -> frozenset[tuple[str, str]]:
    """Those of `steps` that take something away, as (action, URN)."""
    return frozenset((step.action, step.urn) for step in steps if step.action in ("delete", "replace"))


def check_agreed(participant: str, wanted: Iterable[Step], agreed: Iterable[Step]) -> None:
    """Refuse deletes and replacements that nobody was shown. Pure.

    Raises:
        RefusedError: naming them.
    """
    unseen = destructive(wanted) - destructive(agreed)
    if not unseen:
        return
    told = [f"{step.action} {step.title}" for step in wanted if (step.action, step.urn) in unseen]
    raise RefusedError(
        "the engine wants to delete or replace what the plan did not show",
        participant=participant,
        why=", ".join(told),
        next_step="fedspan plan shows it; fedspan up asks again",
    )


def only(participant: str, steps: Iterable[Step], may: Callable[[Step], bool], what: str) -> None:
    """Refuse to change anything but what may be. Pure.

    Args:
        what: may be changed, in words.

    Raises:
        RefusedError: something else of the participant has changed in the spec, or in its cloud.
    """
    others = [f"{step.action} {step.title}" for step in steps if not may(step)]
    if others:
        raise RefusedError(
            f"other changes than {what} are waiting",
            participant=participant,
            why=", ".join(others[:5]),
            next_step=f"fedspan up {participant} shows them and asks",
        )


def only_rules(participant: str, steps: Iterable[Step]) -> None:
    """`only` rules."""
    only(participant, steps, is_rule, "rules")


@dataclass
class StackEngine:
    """One participant's stack.

    Args:
        participant: the stack's name.
        home: where it lives.
        realm: in which clouds.
        interrupts: tells when to stop.
        log: an open text file for everything that is said.
        on_step: `(state, step)` for the live view.
    """

    participant: str
    home: EngineHome
    realm: Realm
    interrupts: Interrupts
    log: IO[str]
    on_step: Callable[[str, Step], None] = lambda state, step: None
    verb: str = "up"
    failed: list[str] = field(default_factory=list, init=False)
    """URNs of the resources at which the last operation failed."""
    made: dict[str, Any] | None = field(default=None, init=False)
    """The checkpoint after the last `up`."""
    _stack: Stack | None = field(default=None, init=False)
    _is_there: bool | None = field(default=None, init=False)

    # -- the stack itself ---------------------------------------------------------------------------------------
    @property
    def _notes(self) -> Path | None:
        home = self.home
        return None if home.is_local else lock_folder(home.lock_dir, home.project, self.participant)

    def _workspace(self) -> Workspace:
        work = self.home.work_dir(self.participant)
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(self.home.passphrase_path),
            "PULUMI_BACKEND_URL": self.home.backend_url,
        }
        pulumi_home = None
        if self.realm.kind == "sandbox":
            pulumi_home = self.home.folder / "pulumi-home"
            pulumi_home.mkdir(mode=0o700, exist_ok=True)
        return Workspace(
            work_dir=str(work),
            pulumi_home=str(pulumi_home) if pulumi_home else None,
            pulumi_command=EngineCommand(self.realm, self.interrupts, self.participant, self.log, self._notes),
            project_settings=auto.ProjectSettings(
                name=self.home.project, runtime="python", backend=auto.ProjectBackend(url=self.home.backend_url)
            ),
            env_vars=environment,
            secrets_provider="passphrase",
        )

    def _open(self) -> Stack:
        """The stack, whether it is there or not."""
        if self._stack is None:
            self._stack = Stack(self.participant, self._workspace())
        return self._stack

    def _there(self) -> Stack | None:
        """The stack; None where there is none."""
        if self._is_there is None:
            self.state()
        return self._open() if self._is_there else None

    def _ensured(self) -> Stack:
        """The stack; made where there is none."""
        if self._there() is None:
            try:
                self._open().workspace.create_stack(self.participant)
            except auto.CommandError as error:
                raise self._failure(error, Collector()) from error
            self._is_there = True
        return self._open()

    def state(self) -> dict[str, Any] | None:
        """The deployment part of the checkpoint (`resources`, `pending_operations`, …), or None without a stack."""
        if self._is_there is False:
            return None
        try:
            deployment = self._open().export_stack().deployment
        except auto.StackNotFoundError:
            self._is_there = False
            return None
        except auto.CommandError as error:
            raise self._failure(error, Collector()) from error
        self._is_there = True
        return dict(deployment or {})

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put an edited checkpoint in the place of the stack's own."""
        stack = self._there()
        assert stack is not None, "a state is edited, so there is a stack"
        try:
            stack.import_stack(auto.Deployment(version=3, deployment=dict(state)))
        except auto.CommandError as error:
            raise self._failure(error, Collector()) from error

    # -- operations ---------------------------------------------------------------------------------------------
    def preview(self, program: Program, plan_name: str | None = None, refresh: bool = False) -> Preview:
        """What `up` with this program would do. With `plan_name` the engine's own plan is saved for `up`.

        With `refresh` it looks at the cloud first, as `up` would.
        """
        stack = self._ensured()
        collector = Collector()
        plan = self.home.work_dir(self.participant) / plan_name if plan_name else None
        try:
            stack.preview(program=program, on_event=collector, plan=str(plan) if plan else None, refresh=refresh)
        except auto.CommandError as error:
            raise self._failure(error, collector) from error
        if plan is not None and plan.exists():
            plan.chmod(0o600)
        return Preview(tuple(collector.steps), plan if plan is not None and plan.exists() else None)

    def up(
        self, program: Program, agreed: Preview | None = None, refresh: bool = False
    ) -> tuple[dict[str, Any], list[Step]]:
        """Make it so; returns the outputs and what was changed.

        With `agreed` the engine itself is held to the plan saved with it. With `refresh` it looks at the cloud first.

        Raises:
            CloudError, CapacityError, CredentialsError, BusyError: told by the cloud or the engine.
            Interrupted: Ctrl-C; what was made is saved.
        """
        stack = self._ensured()
        dog = Watchdog(lambda: self.interrupts.interrupt_engine(self.participant))

        def on_step(state: str, step: Step) -> None:
            dog.saw(state, step)
            self.on_step(state, step)

        collector = Collector(on_step)
        plan = str(agreed.plan_file) if agreed is not None and agreed.plan_file else None
        try:
            with dog:
                stack.up(program=program, on_event=collector, show_secrets=False, plan=plan, refresh=refresh)
        except auto.CommandError as error:
            raise self._failure(error, collector, dog.overdue) from error
        finally:
            if agreed is not None and agreed.plan_file is not None:
                agreed.plan_file.unlink(missing_ok=True)
        self.made = self.state()
        (outputs,) = stack_outputs(self.made)
        return outputs, collector.changed

    def drift(self) -> list[Drift]:
        """What the clouds hold otherwise than the state has it; changes nothing. Empty without a stack."""
        stack = self._there()
        if stack is None:
            return []
        collector = DriftCollector()
        try:
            stack.preview_refresh(on_event=collector, show_secrets=False)
        except auto.CommandError as error:
            raise self._failure(error, Collector()) from error
        return collector.found

    def destroy(self, refresh: bool = False) -> list[Step]:
        """Delete everything in the stack, then the stack itself; with `refresh` after a look at the cloud."""
        stack = self._there()
        if stack is None:
            return []
        collector = Collector(self.on_step)
        try:
            stack.destroy(on_event=collector, show_secrets=False, remove=True, refresh=refresh)
        except auto.CommandError as error:
            raise self._failure(error, collector) from error
        self._stack, self._is_there = None, False
        return collector.changed

    def unlock(self) -> None:
        """Take the stack's locks away. The caller knows that their owner is dead."""
        try:
            self._open().cancel()
            if self._notes is not None:
                forget_locks(self._notes)
        except auto.StackNotFoundError:
            self._is_there = False
        except auto.CommandError as error:
            if self._notes is None:
                raise self._failure(error, Collector()) from error
            # a backend may refuse because nothing is locked any more; if something is, the next operation tells

    def _failure(self, error: auto.CommandError, collector: Collector, overdue: Step | None = None) -> Exception:
        if self.interrupts.stopping.is_set():
            interrupted: Interrupted = self.interrupts.stopped()
            interrupted.participant = self.participant
            return interrupted
        self.failed = [step.urn for step in collector.failed]
        log, work = getattr(self.log, "name", None), self.home.work_dir(self.participant)
        self.log.flush()
        if overdue is not None:
            self.failed.append(overdue.urn)
            return too_slow(self.participant, overdue, deadline_of(overdue), log=str(log) if log else None)
        return from_diagnostics(
            self.participant,
            collector.diagnostics,
            said=str(error),
            log=str(log) if log else None,
            verb=self.verb,
            unlock=shlex.join(["pulumi", "-C", str(work), "cancel", "--stack", self.participant, "--yes"]),
        )
