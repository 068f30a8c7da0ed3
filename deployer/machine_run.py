"""From a machine that answers to a participant that runs on it: log in (pinned key), push kit and runtime, start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.crew import Crew
from deployer.errors import HostKeyError
from deployer.interrupts import Interrupts
from deployer.keys import KeyStore, host_entry
from deployer.member import Member
from deployer.reach import Reach
from deployer.settings import setting

if TYPE_CHECKING:
    from deployer.ssh import Machine


def reach_cloud(crew: Crew, member: Member, address: str, port: int, user: str) -> Reach:
    """How to log in to a machine that a stack made; pins the host key that it may show first."""
    from deployer.host_keys import pin_accepted

    keys = crew.deployment.keys
    pin_accepted(keys, member.name, address, port)
    return Reach(member.name, address, port, user, keys.login_path, keys.known_hosts)


def reach_host(crew: Crew, member: Member) -> Reach:
    """How to log in to a machine that was there before us.

    Its host key is the one that the operator's own `~/.ssh/known_hosts` knows, or one that the operator confirms now.

    Raises:
        HostKeyError: the key is not known, and nobody is there to confirm it.
    """
    keys = crew.deployment.keys
    port = member.ssh_port or 22
    assert member.host is not None, "the spec names a host target's address"
    assert member.user is not None, "the spec names a host target's user"
    if not is_pinned(keys, member.host, port):
        keys.pin(member.host, port, trusted_key(crew, member.name, member.host, port))
    key = Path(member.key).expanduser() if member.key else own_key(keys)
    return Reach(member.name, member.host, port, member.user, key, keys.known_hosts)


def own_key(keys: KeyStore) -> Path:
    """The operator's usual SSH key; the deployment's own where there is none."""
    usual = [Path.home() / ".ssh" / name for name in ("id_ed25519", "id_ecdsa", "id_rsa")]
    return next((path for path in usual if path.is_file()), keys.login_path)


def is_pinned(keys: KeyStore, address: str, port: int) -> bool:
    """Whether a key is pinned for this machine."""
    from deployer.ssh import read_pins

    return keys.known_hosts.is_file() and bool(read_pins(keys.known_hosts, address, port))


def trusted_key(crew: Crew, participant: str, address: str, port: int) -> str:
    """The public host key of a machine that was there before us: known to the operator, or confirmed now."""
    from deployer.cli import context
    from deployer.ssh import fingerprint, read_pins, scan_host_key

    known = Path.home() / ".ssh" / "known_hosts"
    pins = read_pins(known, address, port) if known.is_file() else []
    if pins:
        return str(pins[0].public_key)
    shown = scan_host_key(address, port, name=participant)
    told = f"{host_entry(address, port)} shows the host key {fingerprint(shown)}"
    if context.interactive() and not context.options().json and not context.options().yes:
        crew.screen.line(told)
        context.confirm(f"{participant}: is that its key?")
        return shown
    raise HostKeyError(
        "its host key is not known",
        participant=participant,
        why=f"{told}; nobody is there to confirm it",
        next_step=f"ssh -p {port} {address} once, so that ~/.ssh/known_hosts has the key, then try again",
    )


def log_in(reach: Reach, interrupts: Interrupts, deadline: float) -> Machine:
    """Log in, as soon as the machine answers. Raises UnreachableError, HostKeyError, Interrupted."""
    from deployer.ssh import connect

    def waiting(*_: object) -> None:
        interrupts.check()

    return connect(
        reach.address,
        reach.port,
        reach.user,
        reach.key_path,
        reach.known_hosts,
        deadline_s=deadline,
        on_wait=waiting,
        name=reach.participant,
    )


@dataclass(frozen=True)
class Start:
    """What a participant is started with: where the server is, and what it says of itself."""

    endpoint: str | None
    labels: Mapping[str, str]


# steps of an installation -> phases on the screen
PHASES = {
    "boot": "booting",
    "bundle": "pushing",
    "install": "installing",
    "torch": "installing",
    "kit": "pushing",
    "verify": "verifying",
    "start": "starting",
}


def install_and_start(crew: Crew, member: Member, reach: Reach, start: Start) -> list[str]:
    """Push kit and runtime, start it; returns what had to be changed there (nothing, the second time).

    Raises:
        UnreachableError, HostKeyError, KitError, MachineError, Interrupted.
    """
    from deployer.bootstrap import install_participant
    from deployer.host_keys import rotate_host_key

    log = crew.log.file(member.name)

    def progress(step: str, detail: str) -> None:
        crew.interrupts.check()
        log.write(f"{step}: {detail}\n")
        crew.screen.phase(member.name, PHASES.get(step, step), detail)

    crew.screen.phase(member.name, "booting", f"waiting for SSH at {reach.address} port {reach.port}")
    with log_in(reach, crew.interrupts, setting("SSH_DEADLINE")) as machine:
        if member.cloud and rotate_host_key(
            machine, crew.deployment.keys, member.name, lambda: log_in(reach, crew.interrupts, setting("SSH_DEADLINE"))
        ):
            log.write("host key: the one it booted with is no longer accepted\n")
        done = install_participant(
            machine, member.kit, None, start.endpoint, start.labels, progress, torch=member.wanted_torch
        )
    for step, seconds in done.seconds.items():
        log.write(f"{step}: {seconds:.1f} s\n")
    crew.deployment.ledger.set_notes(member.name, done.notes)
    for note in done.notes:
        crew.screen.line(f"{member.name}: {note}")
    return list(done.changed)


def labels(crew: Crew, member: Member) -> dict[str, str]:
    """What a participant tells the server of itself: who deployed it, and where."""
    found = {"deployed-by": crew.deployment.by, "target": member.target}
    if member.region:
        found["region"] = member.region
    return found
