"""From a machine that answers to a participant that runs on it: log in (pinned key), push kit and runtime, start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.crew import Crew
from deployer.deallocation import deallocation_of
from deployer.errors import HostKeyError
from deployer.expiry import apply_expiry, note_told
from deployer.idle import apply_idle, held
from deployer.interrupts import Interrupts
from deployer.keys import KeyStore, host_entry
from deployer.member import Member
from deployer.reach import Reach, door_for
from deployer.settings import setting

if TYPE_CHECKING:
    from deployer.ssh import Machine


def reach_cloud(crew: Crew, member: Member, address: str, port: int, user: str) -> Reach:
    """How to log in to a machine that a stack made; pins the host key that it may show first."""
    from deployer.host_keys import pin_accepted

    keys = crew.deployment.keys
    pin_accepted(keys, member.name, address, port)
    row = crew.deployment.ledger.participant(member.name)
    door = door_for(row) if row is not None else None
    return Reach(member.name, address, port, user, keys.login_path, keys.known_hosts, member.jump or "", door=door)


def reach_host(crew: Crew, member: Member) -> Reach:
    """How to log in to a machine that was there before us.

    Its host key is the one that the spec gives, that the operator's own `~/.ssh/known_hosts` knows, or that was
    confirmed before (`confirm_host_keys`).

    Raises:
        HostKeyError: the key is not known, and nobody has confirmed it.
    """
    keys = crew.deployment.keys
    port = member.ssh_port or 22
    assert member.host is not None, "the spec names a host target's address"
    assert member.user is not None, "the spec names a host target's user"
    if not is_pinned(keys, member.host, port):
        keys.pin(member.host, port, trusted_key(crew, member, member.host, port))
    key, jump = login_key(keys, member), member.jump or ""
    return Reach(member.name, member.host, port, member.user, key, keys.known_hosts, jump, member.agent)


def reach_before(keys: KeyStore, member: Member) -> Reach:
    """How to log in to a host for a look, before anything is pinned for it: only if the operator's own ssh knows it."""
    assert member.host is not None, "the spec names a host target's address"
    known = Path.home() / ".ssh" / "known_hosts"
    port, user, key = member.ssh_port or 22, member.user or "", login_key(keys, member)
    files = keys.known_hosts if is_pinned(keys, member.host, port) else known
    return Reach(member.name, member.host, port, user, key, files, member.jump or "", member.agent)


def login_key(keys: KeyStore, member: Member) -> Path:
    """The key to log in to a machine that was there before us with."""
    return Path(member.key).expanduser() if member.key else own_key(keys)


def own_key(keys: KeyStore) -> Path:
    """The operator's usual SSH key; the deployment's own where there is none."""
    from deployer.ssh.agent import USUAL

    usual = [Path.home() / ".ssh" / name for name in USUAL]
    return next((path for path in usual if path.is_file()), keys.login_path)


def is_pinned(keys: KeyStore, address: str, port: int) -> bool:
    """Whether a key is pinned for this machine."""
    from deployer.ssh import read_pins

    return keys.known_hosts.is_file() and bool(read_pins(keys.known_hosts, address, port))


def confirm_host_keys(crew: Crew, members: Iterable[Member]) -> None:
    """Ask about the host keys that are not known, one after the other, and pin those that are confirmed.

    From the main thread, before a screen is drawn: questions of several threads would take each other's answers.
    Of a machine that shows no key now nothing is asked: `reach_host` tells why.

    Raises:
        RefusedError: the answer was no.
        Interrupted: Ctrl-C while the keys were looked at.
    """
    from deployer.cli import context

    if not context.interactive() or context.options().json or context.options().yes:
        return
    keys = crew.deployment.keys
    unknown = [member for member in members if member.target == "host" and _is_asked_about(keys, member)]
    shown, _ = crew.each(unknown, lambda member: scanned(crew, member, *_place(member)))
    crew.interrupts.check()
    for member in unknown:
        if member.name in shown:
            context.say(_told(member, shown[member.name]))
            context.confirm(f"{member.name}: is that its key?")
            keys.pin(*_place(member), shown[member.name])


def trusted_key(crew: Crew, member: Member, address: str, port: int) -> str:
    """The public host key of a machine that was there before us.

    Given by the spec (`host_key`), known to the operator, or accepted at first sight where the spec says so: ssh's own
    policies. One that has to be confirmed is pinned by then.

    Raises:
        HostKeyError: it is none of these.
    """
    if (known := _known_key(member)) is not None:
        return known
    shown = scanned(crew, member, address, port)
    told = _told(member, shown)
    if member.host_key == "accept-new":
        crew.screen.line(f"{member.name}: {told}; accepted as new")
        return shown
    jump = f" -J {member.jump}" if member.jump else ""
    raise HostKeyError(
        "its host key is not known",
        participant=member.name,
        why=f"{told}; nobody has confirmed it",
        next_step=f"ssh{jump} -p {port} {address} once, so that ~/.ssh/known_hosts has the key, then try again",
    )


def _place(member: Member) -> tuple[str, int]:
    assert member.host is not None, "the spec names a host target's address"
    return member.host, member.ssh_port or 22


def _known_key(member: Member) -> str | None:
    """The key that the spec gives, or else the operator's own ssh knows."""
    from deployer.ssh import read_pins

    if (member.host_key or "").startswith(("ssh-", "ecdsa-")):
        return member.host_key
    known = Path.home() / ".ssh" / "known_hosts"
    pins = read_pins(known, *_place(member)) if known.is_file() else []
    return str(pins[0].public_key) if pins else None


def _is_asked_about(keys: KeyStore, member: Member) -> bool:
    at_sight = member.host_key == "accept-new"
    return not at_sight and not is_pinned(keys, *_place(member)) and _known_key(member) is None


def _told(member: Member, key: str) -> str:
    from deployer.ssh import fingerprint

    return f"{host_entry(*_place(member))} shows the host key {fingerprint(key)}"


def scanned(crew: Crew, member: Member, address: str, port: int) -> str:
    """The host key that a machine shows, also behind jump hosts."""
    from deployer.ssh import scan_host_key
    from deployer.ssh.hops import close_hops, open_hops, parse_hops

    hops = parse_hops(member.jump) if member.jump else ()
    key = login_key(crew.deployment.keys, member)
    opened = open_hops(hops, member.user or "", key, agent=member.agent, deadline_s=setting("STATUS_DEADLINE"))
    try:
        return scan_host_key(address, port, name=member.name, via=opened[-1] if opened else None)
    finally:
        close_hops(opened)


def log_in(reach: Reach, interrupts: Interrupts, deadline: float) -> Machine:
    """Log in, as soon as the machine answers. Raises UnreachableError, HostKeyError, Interrupted."""

    def waiting(*_: object) -> None:
        interrupts.check()

    return reach.connect(deadline, waiting)


@dataclass(frozen=True)
class Start:
    """What a participant is started with: where the server is, and what it says of itself."""

    endpoint: str | None
    labels: Mapping[str, str]
    end: float | None
    """When a site's machine in a cloud ends itself; seconds since the epoch."""
    idle_s: int | None = None
    """After how many seconds without a job it turns itself off."""


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
        # first of all: whatever fails later, the machine ends; one that was turned on after its end is soon off again
        how = deallocation_of(crew.deployment, member)
        ends_anew = bool(member.cloud) and apply_expiry(machine, start.end, how)
        note_told(crew.deployment.ledger, member.name, start.end)
        with held(machine, start.idle_s):
            idles_anew = bool(member.cloud) and apply_idle(machine, start.idle_s, how)
            done = install_participant(
                machine, member.kit, None, start.endpoint, start.labels, progress, torch=member.wanted_torch
            )
        done.changed += ["expiry"] * ends_anew + ["idle_stop"] * idles_anew
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
