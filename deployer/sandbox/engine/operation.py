"""A whole command that runs a deployment: the stack's lock, its state, the servers, the program, the events, the
history.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pulumi.runtime.proto import language_pb2, resource_pb2

from .asked import Request, pending_text
from .callbacks import Callbacks
from .components import Components
from .config import decrypted
from .defaults import DefaultProviders
from .deployment import Deployment, Outcome
from .display import Display
from .eventlog import open_log
from .events import Stream
from .executor import Executor
from .functions import Builtins
from .generator import Generator
from .hooks import Hooks
from .interrupt import Interrupts
from .journal import Journal
from .language import EngineService, Program, Server
from .monitor import Monitor
from .plan import Constraint, Plan, Recorded
from .problems import CommandFailed, ProviderError
from .registry import Registry, attached
from .session import Session
from .state import VERSION, Resource, Snapshot
from .steps import World
from .transforms import Transforms
from .values import Properties

_PROGRAM_SECONDS = 3.0  # how long the program may take to end after the deployment has


@contextlib.contextmanager
def _locked(session: Session, request: Request) -> Iterator[None]:
    """Holds the stack's lock while something may change; a preview changes nothing."""
    if request.preview:
        yield
        return
    lock = session.backend.lock(session.stack)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def run(session: Session, request: Request) -> int:
    """Runs the command and returns its exit code. Raises CommandFailed for errors of the command itself."""
    if request.run_program and request.verb != "update":
        raise CommandFailed("the sandbox's engine does not run the program in a refresh or a destroy (--run-program)")
    if request.kind.program and not request.client:
        raise CommandFailed("the sandbox's engine runs inline programs of the Automation API only (--client)")
    with Interrupts() as interrupts, _locked(session, request):
        session.unlock()
        display = Display(request, session.stack)
        display.header()
        latest = session.backend.load(session.stack)
        base = Snapshot.from_json(latest, session.secrets.decrypt)
        return _Run(session, request, base, display).run(interrupts)


class _Run:
    def __init__(self, session: Session, request: Request, base: Snapshot, display: Display) -> None:
        self.session, self.request, self.base, self.display = session, request, base, display
        self.started = time.time()
        self.config = decrypted(session.settings.config, session.project.name, session.secrets)
        self.events = Stream(planning=request.preview)
        self.log = open_log(request.event_log) if request.event_log else None
        self.events.listeners += [display, *([self.log] if self.log else [])]
        self.ended = threading.Event()
        self._build()

    def _build(self) -> None:
        request, session, base = self.request, self.session, self.base
        self.server = Server()
        ports = attached(session.project.environment.get("PULUMI_DEBUG_PROVIDERS", ""))
        self.registry = Registry(ports, self.server.address)
        self.registry.add_old(base.resources)
        world = World(self.registry, request.preview, lambda urn, text: self.events.diagnostic("warning", text, urn))
        save = None if request.preview else self._save
        self.journal = Journal(base, save, clear_creates=request.clear_pending_creates)
        self.callbacks = Callbacks()
        hooks = Hooks(self.callbacks, world.warn, preview=request.preview)
        parallel = request.parallel or 4 * (os.cpu_count() or 1)
        self.parallel = min(parallel, 1024)
        executor = Executor(world, self.events, self.journal, hooks, self.parallel, go_on=request.continue_on_error)
        self.plan = self._plan()
        stack, project = session.stack, session.project.name
        generator = Generator(stack, project, base.resources, world, request.options, self.plan)
        self.journal.names = generator.identities.aliased
        self.deployment = Deployment(
            request.kind,
            generator,
            executor,
            self.journal,
            self.events,
            world,
            self.plan,
            Components(self.events, self.journal, request.preview),
            start_program=self._start,
        )
        self.monitor: Monitor | None = None
        if request.kind.program:
            defaults = DefaultProviders(self.deployment.register, self.config)
            functions = Builtins(lambda urn: self._find(generator, urn), self._other_outputs)
            deployment = self.deployment
            transforms = Transforms(self.callbacks)
            self.monitor = Monitor(
                self._info(),
                self.registry,
                defaults,
                transforms,
                hooks,
                functions,
                deployment.register,
                deployment.outputs,
                deployment.signal,
            )
        self.server.serve(EngineService(self.events, debug=request.debug), self.monitor)

    # -- the run -----------------------------------------------------------------------------------------------------
    def run(self, interrupts: Interrupts) -> int:
        outcome = Outcome(False)
        try:
            self.events.prelude({k: "[secret]" if secret else v for k, (v, secret) in self.config.items()})
            interrupts.attach(self.events, self._interrupted, self._aborted)
            self._warn_of_pending()
            outcome = self.deployment.run()
            interrupts.detach()
            if not self.request.preview:
                self.journal.save()
            code = self._after(outcome)
        finally:
            self.events.summary()
            self.events.close()
            self.deployment.let_go()
            if self.monitor is not None:
                self.monitor.shut_down()
                self.ended.wait(_PROGRAM_SECONDS)
            self._close()
        self.display.footer(outcome.ok)
        self._history("succeeded" if code == 0 else "failed")
        return code

    def _after(self, outcome: Outcome) -> int:
        if outcome.ok and isinstance(self.plan, Recorded):
            self.plan.save(Path(self.request.save_plan), self.session.secrets.encrypt)
            self.display.plan_saved(self.request.save_plan)
        if outcome.ok and self.request.expect_no_changes and set(self.events.changes) - {"same"}:
            self.events.diagnostic("error", "no changes were expected but changes occurred")
            return 1
        return 0 if outcome.ok else 1

    def _start(self) -> None:
        request, session = self.request, self.session
        self.program = Program(request.client)
        config = {k: v for k, (v, _) in self.config.items()}
        ask = language_pb2.RunRequest(
            project=session.project.name,
            stack=session.stack,
            pwd=str(session.project.folder),
            program=".",
            args=[self.server.address],
            config=config,
            configSecretKeys=[k for k, (_, s) in self.config.items() if s],
            dryRun=request.preview,
            parallel=self.parallel,
            monitor_address=self.server.address,
            organization="organization",
        )

        def ended(error: str, bail: bool) -> None:
            self.deployment.program_ended(error, bail)
            self.ended.set()

        self.program.run(ask, ended)

    def _info(self) -> resource_pb2.DeploymentInfo:
        session = self.session
        return resource_pb2.DeploymentInfo(
            project=session.project.name,
            stack=session.stack,
            organization="organization",
            dryRun=self.request.preview,
            config={k: v for k, (v, _) in self.config.items()},
            configSecretKeys=[k for k, (_, s) in self.config.items() if s],
            parallel=self.parallel,
        )

    def _plan(self) -> Plan:
        request = self.request
        if request.save_plan:
            return Recorded()
        return Constraint.load(Path(request.plan), self.session.secrets.decrypt) if request.plan else Plan()

    def _save(self, snapshot: Snapshot) -> None:
        secrets = self.session.secrets
        self.session.backend.save(self.session.stack, snapshot.to_json(secrets.encrypt, secrets.state))

    @staticmethod
    def _find(generator: Generator, urn: str) -> Resource | None:
        return generator.identities.made.get(urn) or generator.identities.olds.get(urn)

    def _other_outputs(self, name: str) -> Properties:
        raise ProviderError(f"stack references are not supported by the sandbox's engine: {name}")

    def _warn_of_pending(self) -> None:
        pending = self.base.pending
        if pending and not self.request.preview and not self.request.kind.refresh:
            self.events.diagnostic("warning", pending_text(pending))

    # -- endings -----------------------------------------------------------------------------------------------------
    def _interrupted(self) -> None:
        self.deployment.cancel()
        self.registry.cancel()

    def _aborted(self) -> None:
        """The second interrupt: the state stays as it was last written, pending operations and all."""
        for lock in self.session.backend.locks(self.session.stack):
            if f'"pid": {os.getpid()},' in lock.read_text():
                lock.unlink(missing_ok=True)
        self.events.summary()
        self.events.close()
        if self.log is not None:
            self.log.close()
        self.display.footer(False)
        self._history("failed")

    def _close(self) -> None:
        self.registry.close()
        self.callbacks.close()
        if self.log is not None:
            self.log.close()
        self.server.stop()

    def _history(self, result: str) -> None:
        if self.request.preview:
            return
        request = self.request
        environment = {
            "exec.kind": request.exec_kind,
            "pulumi.arch": platform.machine(),
            "pulumi.os": platform.system().lower(),
            "pulumi.version": VERSION,
            "runtime.name": "client",
            "updatePlan": str(bool(request.plan)).lower(),
            **{f"pulumi.flag.{flag}": "set" for flag in request.flags},
        }
        entry = {
            "kind": request.verb,
            "startTime": int(self.started),
            "message": request.message,
            "environment": environment,
            "config": self.session.settings.config,
            "result": result,
            "endTime": int(time.time()),
            "version": 0,
            "resourceChanges": dict(sorted(self.events.changes.items())),
        }
        self.session.backend.add_history(self.session.stack, entry)
