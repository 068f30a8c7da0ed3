"""A kit's owner starts it here: `start.sh` and `stop.sh` without `--cloud`.

The runtime runs from this installation, supervised, in a session of its own. Its state lies in
`$XDG_STATE_HOME/fedspan/participants/FEDERATION/NAME` (or where `--state` says), never in the kit: one folder for one
identity, so that a second copy of a kit is noticed before two processes claim the same name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployer.ca_pins import accept_ca, state_home
from deployer.cli import context
from deployer.errors import KitError, MachineError, NotRegisteredError, RefusedError
from deployer.local_configure import configure
from deployer.push import local_tree
from startup_kits.kit import ENDPOINT, Kit
from startup_kits.workspace import write_private

REGISTER_DEADLINE_S = 60.0
"""`start` returns when registered, or after this time with the cause; the runtime goes on trying."""

STOP_DEADLINE_S = 60.0
ALIVE_AFTER_S = 1.0
STATUS_TIMEOUT_S = 30.0
NOT_RUNNING = 3
_MODULE = "fl_runtime"


def state_folder(kit: Kit, given: Path | None = None) -> Path:
    """Where the runtime of this participant keeps its state here."""
    if given is not None:
        return given.absolute()
    return state_home() / "participants" / kit.federation / kit.name


def log_path(state: Path) -> Path:
    """The runtime's log."""
    return state / "runtime.log"


def start(
    kit: Path,
    *,
    server: str | None = None,
    proxy: str | None = None,
    ca_fingerprint: str | None = None,
    foreground: bool = False,
    data: Sequence[str] = (),
    state: Path | None = None,
) -> None:
    """Starts a kit's participant on this machine; fine where it already runs.

    Args:
        kit: its folder. It is verified first.
        server: `HOST:PORT`, written to the kit's `local/endpoint.yml` like `proxy`.
        ca_fingerprint: as the federation's lead told it; asked for at the first start where it is missing.
        foreground: become the runtime instead of supervising it; Ctrl-C stops it.
        data: `NAME=PATH` each, written to `local/data.yml`.
        state: folder for the runtime's state.

    Raises:
        KitError: the kit is refused.
        RefusedError: another copy of this kit runs here, or nobody compared the CA's fingerprint.
        UsageError: no server's address, no such data.
        NotRegisteredError: not registered within a minute; it goes on trying.
        MachineError: the runtime does not stay up.
    """
    verified = Kit.verify(kit)
    if verified.role == "admin":
        raise KitError(
            "an admin's kit has nothing to start", participant=verified.name, next_step=f"fedspan job list --kit {kit}"
        )
    someone = context.interactive() or context.options().yes
    if accept_ca(verified, ca_fingerprint, context.confirm if someone else None):
        context.say(f"{verified.name}: pinned the CA {verified.ca_fingerprint}")
    configure(verified, server, proxy, data)
    folder = state_folder(verified, state)
    running = runtime_status(folder)
    _check_copy(verified, folder, running is not None)
    launch = _launch(verified)
    if running is not None and _note(folder).get("launch") != launch:
        context.say(f"{verified.name}: the kit or fedspan has changed, restarting")
        _stop(verified, folder)
        running = None
    if running is not None:
        context.say(f"{verified.name} already runs")
        if foreground:
            raise RefusedError(
                "it already runs in the background", participant=verified.name, next_step=f"{verified.path}/stop.sh"
            )
    else:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = {"kit": str(verified.path), "launch": launch}
        write_private(folder / "kit.json", json.dumps(note).encode())
        if foreground:
            _become(serve_argv(verified, folder), folder)
        _spawn(verified, folder)
    _await_registered(verified, folder)


def stop(kit: Path, *, state: Path | None = None) -> None:
    """Stops a kit's participant on this machine, cleanly; fine where it does not run."""
    opened = Kit.open(kit)
    folder = state_folder(opened, state)
    if runtime_status(folder) is None:
        context.say(f"{opened.name} is not running here")
        return
    _check_copy(opened, folder, running=True)
    _stop(opened, folder)
    context.say(f"{opened.name} has stopped; its state stays in {folder}")


def runtime_status(state: Path) -> dict[str, Any] | None:
    """What the runtime with this state says about itself; None where none runs."""
    if not state.is_dir():
        return None
    argv = [sys.executable, "-m", _MODULE, "status", "--state", str(state)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=STATUS_TIMEOUT_S, check=False, cwd=state)
    if done.returncode == NOT_RUNNING:
        return None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        last = done.stderr.strip().splitlines()[-1:] or ["no answer"]
        raise MachineError(
            f"the runtime in {state} cannot be asked",
            why=last[0],
            log=str(log_path(state)),
            next_step="stop.sh of its kit, then start.sh again",
        ) from error
    return answer


def serve_argv(kit: Kit, state: Path) -> list[str]:
    """The runtime in the foreground."""
    argv = [sys.executable, "-m", _MODULE, "serve", "--kit", str(kit.path), "--state", str(state)]
    return [*argv, "--label", "deployed-by=owner", "--label", "target=kit"]


def _launch(kit: Kit) -> str:
    """Changes with everything that the runtime reads only when it starts."""
    from importlib.metadata import version

    return f"{version('fedspan')} {local_tree(kit.path, keep=(ENDPOINT, 'transfer'))}"


def _note(folder: Path) -> dict[str, str]:
    try:
        note: dict[str, str] = json.loads((folder / "kit.json").read_text())
    except (OSError, ValueError):
        return {}
    return note


def _check_copy(kit: Kit, folder: Path, running: bool) -> None:
    other = _note(folder).get("kit")
    if running and other and Path(other) != kit.path:
        raise RefusedError(
            f"{kit.name} of {kit.federation} already runs here from another copy of its kit",
            participant=kit.name,
            why=f"that copy is {other}",
            next_step=f"{other}/stop.sh first: two processes with one identity would take each other's place",
        )


def _become(argv: list[str], folder: Path) -> None:
    """Replaces this process: signals go to the runtime itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(folder)
    os.execv(argv[0], argv)  # noqa: S606 - argv of our own making, no shell


def _spawn(kit: Kit, folder: Path) -> None:
    supervise = [sys.executable, "-m", _MODULE, "supervise", "--state", str(folder), "--", *serve_argv(kit, folder)]
    done = subprocess.run(
        supervise, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )
    if done.returncode != 0:
        raise MachineError(
            "the runtime cannot be started",
            participant=kit.name,
            why=done.stderr.strip() or None,
            next_step=f"{kit.path}/start.sh --foreground shows what it says",
        )


def _stop(kit: Kit, folder: Path) -> None:
    argv = [sys.executable, "-m", _MODULE, "stop", "--state", str(folder)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=STOP_DEADLINE_S, check=False, cwd=folder)
        why = done.stderr.strip() if done.returncode else None
    except subprocess.TimeoutExpired:
        why = f"not within {STOP_DEADLINE_S:.0f} s"
    if why:
        raise MachineError(
            "the runtime does not stop",
            participant=kit.name,
            why=why,
            log=str(log_path(folder)),
            next_step=f"{kit.path}/stop.sh once more",
        )


def _await_registered(kit: Kit, folder: Path) -> None:
    from fl_runtime.supervise import supervisor

    started = time.monotonic()
    pause, last, alive = 0.2, None, False
    while (waited := time.monotonic() - started) < REGISTER_DEADLINE_S:
        last = runtime_status(folder)
        given_up = supervisor(folder) is None
        if last is None and given_up and (alive or waited > ALIVE_AFTER_S):
            raise MachineError(
                "the runtime does not stay up",
                participant=kit.name,
                why=_log_end(folder),
                log=str(log_path(folder)),
                next_step=f"mend the cause, then {kit.path}/start.sh again (--foreground shows more)",
            )
        alive = alive or last is not None
        if last is not None and _registered(last):
            context.say(_ready_text(kit, last))
            context.say(f"log: {log_path(folder)}")
            return
        time.sleep(pause)
        pause = min(1.0, pause * 1.4)
    error = (last or {}).get("error") or {}
    raise NotRegisteredError(
        f"not registered with the server within {REGISTER_DEADLINE_S:.0f} s; it goes on trying",
        participant=kit.name,
        why=": ".join(str(error[key]) for key in ("what", "why") if error.get(key)) or None,
        next_step=error.get("next")
        or f"check {kit.endpoint().server} with the federation's lead: your address has to be allowed there",
        log=str(log_path(folder)),
    )


def _registered(status: dict[str, Any]) -> bool:
    return status.get("role") == "server" or bool(status.get("connected"))


def _ready_text(kit: Kit, status: dict[str, Any]) -> str:
    if kit.role == "server":
        return f"{kit.name} listens on port {kit.port}"
    return f"{kit.name} is registered with {status.get('server') or kit.endpoint().server}"


def _log_end(folder: Path) -> str:
    try:
        lines = log_path(folder).read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return "\n".join(lines[-5:]) or "it wrote no log"
