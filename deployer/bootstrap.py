"""From a bare machine to a running participant, over one SSH connection and without a network there.

Facts, the bundle into a virtual environment of its own, the kit, its verification by the code that was pushed, the
server's address, the start. Each step is skipped where the machine already has it, by content: the same bundle, kit
and endpoint on a running machine change nothing; another endpoint is written and read by the agent at its next attempt
to connect, without a restart; another bundle or kit means a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from deployer.bundle import build_bundle
from deployer.errors import KitError, MachineError
from deployer.facts import MachineFacts
from deployer.job_python import VARIABLE, drop_others, job_python
from deployer.launch import Launch
from deployer.local_files import settle_local
from deployer.logs import LogRequest, read_log
from deployer.runtime_environment import Clock, Installed, drop_other_environments, environment_exists, install
from deployer.service import KIT, OPT, Service
from deployer.ssh.machine import Machine
from deployer.ssh.session import OnLine
from deployer.targets import Target
from startup_kits.kit import Kit
from startup_kits.layout import endpoint_file
from startup_kits.torch_source import TorchSource

CLOUD_INIT_DEADLINE_S = 300.0
"""cloud-init on a large image takes a minute or two; a package mirror that hangs must not hang us for ever."""

DISK_NEEDED = 1 << 30
"""Bytes: environment 130 MB, bundle 45 MB, twice while one replaces the other, and room for state."""

KEPT_IN_KIT = ("local", "transfer")
"""Belong to the site: what of local/ an `up` may write, `deployer.local_files` says."""

OnProgress = Callable[[str, str], None]
"""Called with (step, detail); steps in order: boot, bundle, install, torch, kit, verify, start."""


def install_participant(
    machine: Machine,
    kit_path: Path,
    bundle_cache: Path | None,
    endpoint: str | None,
    labels: Mapping[str, str],
    on_progress: OnProgress | None = None,
    *,
    ca_fingerprint: str | None = None,
    extra: Sequence[str] = (),
    torch: TorchSource | None = None,
) -> Installed:
    """Makes a machine run a participant; does what is missing and nothing else.

    Args:
        machine: logged in to.
        kit_path: the participant's kit here. It is verified before anything is sent.
        bundle_cache: folder of wheels and bundles, None for `$XDG_CACHE_HOME/fedspan`.
        endpoint: the server's `HOST:PORT`, None while it is not known.
        labels: what the runtime tells the server about its deployment (deployed-by, target, region).
        on_progress: told of each step.
        ca_fingerprint: CA that the kit must be of, by default the one it names itself.
        extra: further requirements for the environment.
        torch: where job scripts get torch from when the kit says nothing (the default of machines with GPUs).

    Raises:
        KitError: the kit is refused, here or by the machine.
        MachineError: the machine lacks something, or a step failed there.
        UnreachableError: the connection broke; the next call goes on from there.
    """
    tell = on_progress or (lambda step, detail: None)
    kit = Kit.verify(kit_path, ca_fingerprint)
    clock = Clock()

    tell("boot", "waiting for the machine to finish booting")
    facts = await_boot(machine)
    check_facts(facts, machine.name)
    service = Service(machine)
    service.prepare()
    clock.lap("boot")

    tell("bundle", f"wheels for {Target.of(facts)}")
    bundle = build_bundle(Target.of(facts), bundle_cache, extra)
    done = Installed(bundle, seconds=clock.seconds)
    clock.lap("bundle")

    venv = f"{facts.path(OPT)}/venv-{bundle.tree[:16]}"
    if not environment_exists(machine, venv):
        install(machine, bundle, venv, done, clock, tell)

    scripts = job_python(
        machine,
        bundle,
        kit.torch or torch,
        said=kit.torch is not None,
        proxy=kit.endpoint().proxy,
        tell=lambda detail: tell("torch", detail),
    )
    if scripts.changed:
        done.changed.append("torch")
    done.notes += [scripts.note] if scripts.note else []
    clock.lap("torch")

    tell("kit", "pushing the kit")
    pushed = machine.put_tree(kit.path, facts.path(KIT), keep=KEPT_IN_KIT, privileged=True, owner=service.owner)
    local = settle_local(machine, kit, endpoint_file(endpoint, kit.endpoint().proxy), service.owner)
    done.sent_bytes += pushed.sent_bytes + local.sent_bytes
    moved = "endpoint.yml" in local.written
    others = len(local.written) > moved
    steps = (("kit", pushed.changed), ("local", others and not pushed.changed), ("endpoint", moved))
    done.changed += [name for name, changed in steps if changed]
    done.notes += [local.note] if local.note else []
    clock.lap("kit")

    launch = Launch(
        bundle=bundle.tree,
        kit=f"{pushed.tree}-{local.pushed[:16]}",
        venv=venv,
        description=f"fedspan runtime: {kit.name} of {kit.federation}",
        ca_fingerprint=kit.ca_fingerprint,
        labels=labels,
        port=kit.port if kit.role == "server" else None,
        environment={VARIABLE: scripts.path} if scripts.path else {},
    )
    if done.changed:
        tell("verify", "the machine verifies the kit")
        verify_there(service, launch)
        clock.lap("verify")
    tell("start", "starting the runtime")
    if service.start(launch):
        done.changed.append("started")
        previous = service.started().previous
        drop_other_environments(machine, venv, *([previous.venv] if previous else []))
        drop_others(machine, scripts.path)
    clock.lap("start")
    return done


def await_boot(machine: Machine) -> MachineFacts:
    """The machine's facts, once cloud-init is done there (sudo and the state volume come from it)."""
    facts = machine.facts()
    if not facts.cloud_init:
        return facts
    done = machine.run(["cloud-init", "status", "--wait"], check=False, timeout_s=CLOUD_INIT_DEADLINE_S)
    if done.status not in (0, 2):  # 2: done, with warnings about something that was recovered
        said = machine.run(["cloud-init", "status", "--long"], check=False, timeout_s=30).stdout
        raise MachineError(
            "cloud-init failed on the machine",
            participant=machine.name,
            why=said.strip() or done.stdout.strip() or None,
            next_step=f"fedspan ssh {machine.name} -- sudo tail -50 /var/log/cloud-init-output.log",
        )
    machine.forget_facts()
    return machine.facts()


def check_facts(facts: MachineFacts, name: str) -> None:
    """Raises MachineError where the machine lacks what an installation needs."""
    if facts.implementation != "cpython":
        raise MachineError(
            f"the machine's python3 is {facts.implementation}",
            participant=name,
            next_step="install CPython 3.10 or newer there",
        )
    if not facts.has_venv:
        raise MachineError(
            "the machine's Python has no venv module",
            participant=name,
            next_step="install python3-venv (Debian, Ubuntu) or python3-libs (Fedora) there",
        )
    if not facts.writable and not facts.sudo and facts.uid != 0:
        raise MachineError(
            f"{facts.user} may not write {facts.path(OPT)}",
            participant=name,
            why="it is not root, and sudo asks for a password",
            next_step=f"on the machine, allow {facts.user} `sudo` without a password",
        )
    if facts.disk_free < DISK_NEEDED:
        raise MachineError(
            f"the machine has {facts.disk_free >> 20} MB of free disk for {facts.path(OPT)}",
            participant=name,
            why=f"an installation needs {DISK_NEEDED >> 20} MB",
            next_step="set a larger `disk` in federation.yml, or make room there",
        )


def verify_there(service: Service, launch: Launch) -> None:
    """Has the machine verify its kit with the code that was pushed to it.

    Raises:
        KitError: it refuses the kit.
    """
    machine = service.machine
    done = machine.run_privileged(service.verify_argv(launch), check=False, timeout_s=120)
    if done.status == KitError.exit_code:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise KitError(
            "the machine refuses its kit",
            participant=machine.name,
            why=lines[0].removeprefix("error: ") if lines else None,
            next_step=f"fedspan up {machine.name}: the kit is pushed anew where it differs from the one here",
        )
    if done.status != 0:
        raise machine.failed(done)


def runtime_status(machine: Machine) -> dict[str, Any] | None:
    """What the runtime on a machine says about itself; None where it is not installed or not running."""
    return Service(machine).status()


def runtime_stop(machine: Machine) -> bool:
    """Stops the runtime on a machine cleanly; whether it was running."""
    return Service(machine).stop()


def runtime_remove(machine: Machine, *, keep_state: bool = False) -> None:
    """Stops the runtime and removes what was installed: for machines that are not taken down with their stack."""
    Service(machine).remove(keep_state=keep_state)


def runtime_log(
    machine: Machine,
    on_line: OnLine | None = None,
    *,
    tail: int | None = 200,
    since: datetime | None = None,
    follow: bool = False,
) -> str:
    """The runtime's log; see `deployer.logs`.

    Args:
        on_line: told each line; with `follow` until the caller interrupts.
        tail: last lines, None for all.
        since: nothing older.

    Returns:
        the text; empty where `on_line` got lines without bound (`follow`, or `tail` None).
    """
    return read_log(machine, LogRequest(tail=tail, since=since, follow=follow), on_line)
