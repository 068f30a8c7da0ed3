"""From a deployment to its plan: typed arguments for each stack, then the engine's preview where a stack exists.

A stack that holds nothing yet can only be made whole, so its plan is read from `stacks.resources.describe`, without an
engine. Where something stands, the engine is asked what it would change.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deployer import unchanged
from deployer.checkpoint import address_in, boots_another, had_identity, has_trusted_launch, principal_in
from deployer.deployment import Deployment
from deployer.engine import Preview, StackEngine
from deployer.errors import SpecError
from deployer.expiry import azure_schedule, expiry_of
from deployer.expiry_units import stamp
from deployer.idle import promise
from deployer.ingress import (
    Opening,
    cidrs,
    endpoint_host,
    fitted,
    is_address,
    placeholder,
    runtime_openings,
    ssh_openings,
)
from deployer.member import Member, uses_in_words
from deployer.part import Part
from deployer.plan import ParticipantPlan, Plan, now
from deployer.plan_steps import steps_of
from deployer.programs import load_program
from deployer.server_address import server_endpoint
from deployer.state_loss import lost_volume, note_of
from deployer.torch_words import torch_in_words
from stacks.args import MAX_RULES, HostKey, ParticipantArgs, door_rules
from stacks.existing import Existing
from stacks.extras import extras_usd_hour
from stacks.images import image_for, os_disk_gib


@dataclass
class Planner:
    """Makes arguments and plans for one deployment."""

    deployment: Deployment
    addresses: dict[str, str] = field(default_factory=dict)
    final: bool = False
    """Rules are going to be made: addresses still unknown have no rule. In a plan, placeholders stand for them."""
    refresh: bool = False
    """Look at the clouds first, so that what was changed behind the engine is put right."""
    ends: dict[str, float | None] = field(default_factory=dict)
    """When machines are to end themselves, where this command says so; else the ledger does."""
    _networks: tuple[str, ...] = ()

    def end_of(self, member: Member) -> float | None:
        """When a participant's machine ends itself; seconds since the epoch, None: never."""
        if member.name in self.ends:
            return self.ends[member.name]
        return expiry_of(self.deployment.ledger, member.name) if member.cloud else None

    def ssh_networks(self) -> tuple[str, ...]:
        """From where SSH is open; one's own address is asked for once."""
        if not self._networks:
            self._networks = tuple(self.deployment.ssh_networks())
        return self._networks

    def openings(self, member: Member) -> tuple[Opening, ...]:
        """What will be open on a participant's machine, with the addresses known so far."""
        if member.cloud is None:
            return ()
        port = member.ssh_port or self.deployment.realm.ssh_port
        found = ssh_openings(port, self.ssh_networks()) if member.ssh_access == "always" else []
        if member.role == "server":
            found += runtime_openings(
                member,
                self.deployment.members.values(),
                self.addresses,
                self.deployment.ledger.allowed(),
                self.deployment.admins,
            )
        return tuple(opening for opening in found if not (self.final and opening.pending))

    def _way_to_server(self, member: Member) -> dict[str, Any]:
        """Where a site whose way out is restricted finds the server; a placeholder while it is not known."""
        server = self.deployment.server
        if member.role == "server" or not member.egress_restricted or server is None:
            return {}
        address = self._server_address(member, server)
        return {"server_cidr": f"{address}/32" if address else placeholder(0), "server_port": server.port}

    def _server_address(self, member: Member, server: Member) -> str | None:
        known = self.addresses.get("server") or (server.host if server.target == "host" else None)
        if known and is_address(known):
            return known
        if not member.kit.is_dir() or (server.cloud and not self.final):
            return None
        if not server.cloud and (endpoint := server_endpoint(self.deployment, self.addresses)):
            host = endpoint.rpartition(":")[0]  # `up` writes it into the kits
            return host if is_address(host) else None
        return endpoint_host(member)

    def check_way(self, member: Member) -> None:
        """Before rules are made: a site whose way out is restricted must have a server's address to be let out to.

        Raises:
            SpecError: none is known.
        """
        server = self.deployment.server
        if not self._way_to_server(member) or server is None or self._server_address(member, server):
            return
        steps = {
            "host": "server.host: with its IPv4 address in federation.yml",
            "kit": f"no server.hostname, and server: HOST:PORT with an IPv4 address in {member.kit}/local/endpoint.yml",
        }
        raise SpecError(
            "egress: restricted needs the server's address, and none is known",
            participant=member.name,
            why="a cloud's rules take addresses, not names; without it the machine could not reach the server",
            next_step=steps.get(server.target, "fedspan up server"),
        )

    def arguments(self, part: Part) -> ParticipantArgs:
        """The typed arguments of a participant's stack. Raises StackArgumentError for what no cloud would take."""
        deployment, member = self.deployment, part.member
        port = member.ssh_port or deployment.realm.ssh_port
        openings = self.openings(member)
        host = deployment.keys.host(member.name)
        server = member.role == "server"
        assert member.region is not None, "the spec names a region for every participant in a cloud"
        ssh, runtime = fitted(
            cidrs(openings, port),
            cidrs(openings, member.port or 0) if server else (),
            MAX_RULES - door_rules(member.ssh_access),
        )
        scheduled = member.cloud == "azure" and not member.self_deallocate
        args = ParticipantArgs(
            federation=deployment.federation,
            deployment=deployment.ledger.deployment(),
            participant=member.name,
            role=member.role,
            owner=deployment.owner,
            region=member.region,
            zone=member.zone,
            size=member.offer().size,
            gpus=member.gpus,
            os_disk_gib=member.os_disk_gib,
            state_disk_gib=member.state_disk_gib,
            ssh_port=port,
            runtime_port=member.port if server else None,
            existing=Existing(**member.existing),
            encryption_at_host=member.encryption_at_host,
            tags=deployment.tags,
            ssh_access=member.ssh_access,
            ssh_ingress=ssh,
            egress_restricted=member.egress_restricted,
            mirrors=member.mirrors,
            **self._way_to_server(member),
            runtime_ingress=runtime,
            public_key=deployment.keys.login(deployment.federation).public,
            host_key=HostKey(host.private, host.public),
            spot=member.spot,
            expires=stamp(end) if (end := self.end_of(member)) is not None else None,
            deallocate_at=azure_schedule(end, time.time()) if scheduled else None,
            self_deallocate=member.self_deallocate,
            principal=principal_in(part.state),
            drop_identity=not member.self_deallocate and had_identity(part.state),
            torch_image=(torch := member.wanted_torch) is not None and torch.from_image,
        )
        assert member.cloud is not None, "only a participant in a cloud has a stack"
        if boots_another(part.state, image_for(member.cloud, args)):
            return replace(args, reimage=True)
        kept = member.cloud == "azure" and args.existing.image and not has_trusted_launch(part.state)
        return replace(args, trusted_launch=False) if kept else args

    def prepare(self, member: Member, state: dict[str, Any] | None = None, access: Any = None) -> Part:
        """What stands: the stack's state, and its address for everybody else's rules."""
        part = Part(member, state, access=access)
        if not part.moved_from and part.has_address and (address := address_in(part.state)):
            self.addresses[member.name] = address
        return part

    def complete(self, part: Part, engine: StackEngine | None, plan_name: str | None = None) -> None:
        """Arguments with all known addresses; then the engine's preview, where something stands already."""
        if part.member.cloud is None or engine is None:
            return
        part.openings = self.openings(part.member)
        part.args = self.arguments(part)
        part.program()  # whatever no cloud would take is refused now
        if (server := self.deployment.server) is not None and not server.cloud and part.member.kit.is_dir():
            self.check_way(part.member)  # nothing that `up` makes would tell it
        if part.holds_something and not part.moved_from:
            part.preview = self.preview(part, engine, plan_name)

    def preview(self, part: Part, engine: StackEngine, plan_name: str | None = None) -> Preview:
        """The engine's, where it is not known that nothing is to be changed."""
        assert part.args is not None, "args are made first"
        ledger, name = self.deployment.ledger, part.member.name
        known = self._digest(part)
        # which image is today's, a cloud says: whoever wants it asks
        settled = not part.refresh and not part.args.reimage
        if settled and unchanged.is_kept(ledger, name, known):
            return Preview(())
        load_program(part.member.cloud or "")
        found = engine.preview(part.program(), plan_name, part.refresh)
        if settled and not found.steps:
            unchanged.keep(ledger, name, known)
        return found

    def keep(self, part: Part, engine: StackEngine | None) -> None:
        """What the engine has just made is known in the next preview."""
        if not part.made or engine is None:
            return
        part.state = engine.made
        unchanged.keep(self.deployment.ledger, part.member.name, self._digest(part))

    def _digest(self, part: Part) -> str:
        assert part.member.cloud is not None, "only a participant in a cloud has a stack"
        assert part.args is not None, "args are made first"
        return unchanged.digest(part.member.cloud, part.args, part.access, part.state or {})

    def participant_plan(self, part: Part) -> ParticipantPlan:
        """What to show of one participant."""
        member = part.member
        plan = ParticipantPlan(member.name, member.role, member.target, torch=torch_in_words(member))
        if member.target == "kit":
            return replace(plan, note="awaited: its owner starts the kit")
        if member.target == "host":
            return replace(plan, place=member.host or "", note="by SSH; its firewall is not ours")
        assert member.cloud is not None, "the remaining targets are clouds"
        assert part.args is not None, "a participant in a cloud has arguments"
        offer = member.offer()
        return replace(
            plan,
            place=member.region or "",
            zone=member.zone or "",
            uses=uses_in_words(member),
            idle=promise(member.idle_stop, member.cloud, terminated=bool(part.args.spot or part.args.expires)),
            self_deallocate=member.self_deallocate,
            size=offer.size,
            gpus=f"{offer.gpus}x {offer.gpu_model} {offer.gpu_memory_gib:g} GiB" if offer.gpus else "",
            usd_hour=offer.usd_hour,
            os_disk_gib=(os_disk := os_disk_gib(member.cloud, part.args)),
            state_disk_gib=part.args.state_disk_gib,
            extras_usd_hour=extras_usd_hour(member.cloud, os_disk, part.args.state_disk_gib),
            as_of=offer.as_of,
            price_region=offer.price_region,
            price_source=offer.source,
            steps=steps_of(part.preview, part.state, member.cloud, part.args),
            openings=part.openings,
            note=self._note(part),
        )

    def _note(self, part: Part) -> str:
        if part.moved_from:
            return f"moves from {part.moved_from}: everything there is deleted, the runtime's state too"
        lost = lost_volume(part, self.deployment.ledger.events(part.member.name))
        return note_of(lost) if lost else ""

    def plan(self, parts: Mapping[str, Part]) -> Plan:
        """What to show of everybody."""
        deployment = self.deployment
        gone = [
            row.name
            for row in deployment.ledger.participants()
            if row.name not in deployment.members and row.cloud and row.phase not in ("down", "planned")
        ]
        notes = [*deployment.notes]
        notes += [f"{name}: {note}" for name in parts for note in deployment.ledger.notes(name)]
        if gone:
            notes.append(
                f"no longer in federation.yml, still deployed: {', '.join(gone)} (fedspan down {' '.join(gone)})"
            )
        return Plan(
            federation=deployment.federation,
            realm=deployment.realm.kind,
            realm_id=deployment.realm.id,
            digest=deployment.digest,
            made=now(),
            participants=tuple(self.participant_plan(part) for part in parts.values()),
            notes=tuple(notes),
        )
