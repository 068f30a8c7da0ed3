"""A kit's owner deploys it: `fedspan up --kit DIR --cloud aws`, or `start.sh --cloud aws`. Own account, state, keys.

The state lies under `$XDG_STATE_HOME/fedspan/owners/<CA>-<name>`, never in the kit: a kit can be thrown away and given
out again, what it made in a cloud stays known. The lead's server has to let the new machine in, so its address comes
first, with the command that the server's owner must type.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from deployer import realm as realms
from deployer.ca_pins import accept_ca
from deployer.cli import context
from deployer.cost import Cap
from deployer.deployment import Deployment
from deployer.endpoints import checked_endpoint
from deployer.errors import NotRegisteredError, UsageError
from deployer.ledger import Ledger
from deployer.machine_run import log_in
from deployer.owner_choice import (
    SETTINGS,
    Choice,
    check_residency,
    chosen,
    deployment_of,
    read_choice,
    state_of,
    to_close,
)
from deployer.owner_words import owners_words
from deployer.plan import Plan
from deployer.register import log_end, server_status
from deployer.session import carry_out, opened
from deployer.settings import setting
from deployer.stack_work import Outcome
from deployer.up import Up
from startup_kits.kit import Kit
from startup_kits.workspace import write_private


def standing(kit_path: Path) -> Deployment:
    """The deployment of a kit that its owner has deployed.

    Raises:
        UsageError: it is not.
    """
    kit = Kit.verify(kit_path)
    saved = read_choice(state_of(kit))
    if saved is None:
        raise UsageError(
            "not deployed by you", participant=kit.name, next_step=f"fedspan up --kit {kit_path} --cloud …"
        )
    return deployment_of(kit, chosen(saved, {}, kit.name), realms.current())


class OwnerUp(Up):
    """`up` of one kit by its owner: another server to tell, another way to see that the site is registered."""

    kit: Kit
    choice: Choice
    left: str | None = None
    """The address before this `up`."""

    def apply(self, plan: Plan) -> Outcome:
        """The answer was yes: only now the choice is kept, before anything is made."""
        content = json.dumps(self.choice.document(), indent=1) + "\n"
        write_private(self.deployment.state_dir / SETTINGS, content.encode())
        return super().apply(plan)

    @property
    def _teller(self) -> str | None:
        return self.kit.name

    def _endpoint(self) -> None:
        """The owner does not make the server's address: the kit has it. Tell what the server's owner must type."""
        address = self.planner.addresses.get(self.kit.name)
        if self.kit.role == "server":
            super()._endpoint()
            return
        self.outcome.endpoint = self.kit.endpoint().server
        if address and self.left and self.left != address:
            self.crew.screen.line(to_close(self.kit, self.left))
        if address:
            self.crew.screen.line(f"the server's owner must type: fedspan allow {self.kit.name} {address}/32")

    def _await_sites(self) -> None:
        """Until the site's own agent says that it is connected."""
        if self.kit.role == "server" or self.errors:
            return
        reach = self.reaches[self.kit.name]
        end = time.monotonic() + setting("OWNER_DEADLINE")
        self.crew.screen.phase(self.kit.name, "waiting", "for the server to let it in")
        said: dict[str, Any] = {}
        with log_in(reach, self.crew.interrupts, setting("SSH_DEADLINE")) as machine:
            while time.monotonic() < end:
                said = server_status(machine) or said
                if said.get("connected"):
                    self.crew.screen.phase(self.kit.name, "registered")
                    self.deployment.ledger.record(self.kit.name, "registered")
                    self.outcome.registered = [self.kit.name]
                    return
                self.crew.interrupts.wait(2 * setting("REGISTER_INTERVAL"))
        error = said.get("error") or {}
        why = ": ".join(str(word) for word in (error.get("what"), error.get("why")) if word)
        self.errors[self.kit.name] = NotRegisteredError(
            "the server has not let it in yet",
            participant=self.kit.name,
            why=why or f"its log ends:\n{log_end(self.crew, reach)}",
            next_step=f"the server's owner types: fedspan allow {self.kit.name} {reach.address}/32; it goes on trying",
        )


def up(
    kit: Path,
    cloud: str | None = None,
    *,
    region: str | None = None,
    zone: str | None = None,
    size: str | None = None,
    profile: str | None = None,
    subscription: str | None = None,
    server: str | None = None,
    ca_fingerprint: str | None = None,
    cap: Cap | None = None,
    refresh: bool = False,
) -> None:
    """Deploy a kit as its owner; go on where an earlier `up` was interrupted. With `refresh` the engine looks first.

    Raises:
        KitError: the kit is refused, or is of another CA than the one pinned at the first start.
        UsageError: cloud, region or the server's address are not known.
        SpecError: the region lies outside of the federation's residency.
        NotRegisteredError: the server did not let the site in within a quarter of an hour; it goes on trying.
    """
    verified = Kit.verify(kit, ca_fingerprint)
    if verified.role == "admin":
        raise UsageError(
            "an admin's kit is not deployed", participant=verified.name, next_step="fedspan job list --kit …"
        )
    asks = context.interactive() and not context.options().json
    accept_ca(verified, ca_fingerprint, context.confirm if asks else None)
    given = {"cloud": cloud, "region": region, "zone": zone, "size": size, "profile": profile}
    state = state_of(verified)
    choice = chosen(read_choice(state), {**given, "subscription": subscription}, verified.name)
    check_residency(verified, choice)
    if server is not None:
        verified.set_endpoint(checked_endpoint(server))
    if verified.role == "site" and verified.endpoint().server is None:
        raise UsageError(
            "the server's address is not known",
            participant=verified.name,
            why=f"{verified.path}/local/endpoint.yml names none",
            next_step="--server HOST:PORT, as the federation's lead told you",
        )
    deployment = deployment_of(verified, choice, realms.current())
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    members = list(deployment.members.values())
    words = owners_words(verified.name, verified.path, choice.cloud, lambda: log_in_command(deployment, verified.name))
    with words, opened(deployment, members, "up") as session:
        work = OwnerUp(session.crew, members)
        work.kit, work.choice = verified, choice
        work.planner.refresh = refresh
        row = deployment.ledger.participant(verified.name)
        work.left = row.address if row is not None else None
        session.up = work
        plan = session.plan()
        outcome = carry_out(session, plan, cap=cap)
    if verified.role == "server" and outcome.endpoint and not context.options().json:
        context.say(f"the sites' owners type: ./start.sh --server {outcome.endpoint}")
        context.say(f"let each site in: fedspan allow SITE CIDR --kit {kit}")


def log_in_command(deployment: Deployment, name: str) -> str:
    """The `ssh` command that reaches the machine of a kit's owner; empty while there is none."""
    row = deployment.ledger.participant(name)
    if row is None or not row.address:
        return ""
    keys = deployment.keys
    options = f"-i {keys.login_path} -o UserKnownHostsFile={keys.known_hosts} -p {row.ssh_port or 22}"
    return f"ssh {options} {row.ssh_user or 'fedspan'}@{row.address}"


def down(kit: Path) -> None:
    """Take the machine of a kit down, as its owner; asks first.

    Raises:
        RefusedError: the answer was no.
    """
    from deployer.session_down import down as take_down
    from deployer.session_down import forget_dead_sandbox, nothing

    opened_kit = Kit.open(kit)
    state = state_of(opened_kit)
    ledger = Ledger(state / "ledger.db")
    saved = read_choice(state)
    if saved is None or not ledger.exists():
        nothing()
        return
    from deployer.down import deployed

    if not deployed(ledger, []):
        nothing()
        return
    if forget_dead_sandbox(state, ledger):
        return
    deployment = deployment_of(opened_kit, chosen(saved, {}, opened_kit.name), realms.current())
    row = ledger.participant(opened_kit.name)
    note = to_close(opened_kit, row.address) if row is not None and row.address and row.role == "site" else None
    cloud = deployment.members[opened_kit.name].target
    with owners_words(opened_kit.name, opened_kit.path, cloud, lambda: log_in_command(deployment, opened_kit.name)):
        take_down(deployment, opened_kit.path.parent, state / "results", [], False, True, note)
