"""What is to be deployed, by whom, and where its state lies: a lead's whole federation, or one kit by its owner."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.engine_home import EngineHome
from deployer.errors import KitError, UsageError
from deployer.keys import KeyStore
from deployer.ledger import NOTHING_THERE, Ledger, check_realm
from deployer.member import Member, from_spec
from deployer.placement import kept
from deployer.realm import Realm
from startup_kits.kit import Kit

if TYPE_CHECKING:
    from startup_kits.spec import FederationSpec
    from startup_kits.workspace import Workspace


@dataclass(frozen=True)
class Deployment:
    """Everything that `plan`, `up` and `down` need to know.

    Attributes:
        by: `lead` (whole federation from its spec) or `owner` (one kit).
        state_dir: `.fedspan`, or the owner's folder for the kit.
        ssh_from: `auto`, or networks.
        admins: networks of the admins' `from`, by e-mail address.
        digest: changes whenever spec or kits do.
    """

    federation: str
    owner: str
    by: str
    state_dir: Path
    members: dict[str, Member]
    ssh_from: str | tuple[str, ...]
    admins: dict[str, tuple[str, ...]]
    leads: tuple[Path, ...]
    digest: str
    realm: Realm
    ledger: Ledger
    notes: list[str] = field(default_factory=list)
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of the operator's own, on every resource."""

    @property
    def keys(self) -> KeyStore:
        """SSH keys and pins."""
        return KeyStore(self.state_dir / "ssh")

    @property
    def home(self) -> EngineHome:
        """Where the stacks live."""
        return EngineHome(self.state_dir / "stacks", f"fedspan-{self.federation}")

    @property
    def server(self) -> Member | None:
        """The server, where this deployment knows it."""
        return self.members.get("server")

    def chosen(self, names: Iterable[str]) -> list[Member]:
        """The named participants, all of them by default.

        Raises:
            UsageError: one is not of this federation.
        """
        names = list(names)
        for name in names:
            if name not in self.members:
                known = ", ".join(self.members)
                raise UsageError(
                    "not of this federation", participant=name, why=f"{self.federation} has {known}", next_step=known
                )
        return [member for name, member in self.members.items() if not names or name in names]

    def ssh_networks(self) -> tuple[str, ...]:
        """From where SSH is open: the spec's networks, or one's own address."""
        return (f"{self.realm.my_address()}/32",) if isinstance(self.ssh_from, str) else self.ssh_from

    def addresses(self) -> dict[str, str]:
        """Addresses that the ledger knows, of participants in a cloud."""
        return {
            row.name: row.address
            for row in self.ledger.participants()
            if row.address and row.cloud and row.phase not in NOTHING_THERE
        }

    def bind(self) -> None:
        """Make sure that the ledger belongs to this realm; stacks of a sandbox that is gone are reported and forgotten.

        Raises:
            RealmError: it belongs to the other kind.
        """
        forgotten = check_realm(self.ledger, self.realm.kind, self.realm.id)
        self.ledger.set_meta("federation", self.federation)
        if forgotten:
            forget_stacks(self.state_dir, self.home)
            self.notes.append(f"the sandbox in which {', '.join(forgotten)} lived is gone, and they with it: forgotten")


def forget_stacks(state_dir: Path, home: EngineHome) -> None:
    """Throw away stacks whose clouds no longer exist. Only for a sandbox that is gone: real clouds don't die."""
    home.forget()
    KeyStore(state_dir / "ssh").destroy()


def lead(workspace: Workspace, spec: FederationSpec, realm: Realm, *, complete: bool = True) -> Deployment:
    """The federation of a spec; every kit is verified, and with `complete` there must be one for everybody.

    Raises:
        KitError: a kit is missing, tampered with, of another CA or of another federation.
    """
    from startup_kits.provision import ca_fingerprint

    fingerprint = ca_fingerprint(workspace)
    members: dict[str, Member] = {}
    ledger = Ledger(workspace.ledger_path)
    for name, part in spec.participants().items():
        member = kept(from_spec(part, workspace.kits_dir), ledger.participant(name))
        if member.kit.is_dir():
            kit = Kit.verify(member.kit, fingerprint)
            if kit.federation != spec.name:
                raise KitError(
                    f"the kit belongs to the federation {kit.federation}, not to {spec.name}",
                    participant=name,
                    why="a federation's name is in every certificate and can't be changed",
                    next_step=f"name it {kit.federation} again, or begin {spec.name} in a folder of its own",
                )
            member = member.with_kit(kit)
        elif complete:
            raise KitError("there is no kit yet", participant=name, next_step="fedspan provision")
        members[name] = member
    admins = {name: tuple(admin.from_) for name, admin in spec.admins.items()}
    leads = tuple(workspace.kits_dir / name for name, admin in spec.admins.items() if admin.role == "lead")
    ssh_from = spec.defaults.ssh_from
    return Deployment(
        federation=spec.name,
        owner=spec.defaults.owner or next(iter(spec.admins), "unknown"),
        by="lead",
        state_dir=workspace.state_dir,
        members=members,
        ssh_from=ssh_from if isinstance(ssh_from, str) else tuple(ssh_from),
        admins=admins,
        leads=leads,
        digest=digest(workspace.spec_path, [member.kit for member in members.values()]),
        realm=realm,
        ledger=ledger,
        tags=dict(spec.defaults.tags),
    )


def digest(spec_path: Path | None, kits: Iterable[Path]) -> str:
    """A short text that changes whenever the spec or a signed part of a kit does."""
    sums = hashlib.sha256()
    if spec_path is not None:
        sums.update(spec_path.read_bytes())
    for kit in kits:
        signature = kit / "startup" / "signature.json"
        sums.update(json.dumps([kit.name, signature.read_text() if signature.is_file() else None]).encode())
    return sums.hexdigest()[:24]
