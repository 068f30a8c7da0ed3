"""`fedspan doctor`: everything that `up` would check, also what it would not reach, each thing in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from os import environ

from deployer import realm as realms
from deployer.cli import context
from deployer.deployment import Deployment, lead
from deployer.errors import FedspanError
from deployer.hosts_examined import check_hosts
from deployer.ledger import NOTHING_THERE
from deployer.lockfile import exclusive
from deployer.member import Member
from deployer.part import Part
from deployer.plan_make import Planner
from deployer.preflight import engine, local
from deployer.preflight.engine import from_error
from deployer.preflight.model import Finding
from deployer.preflight.run import Candidate, check
from deployer.preflight.standing import from_row
from stacks.resources import describe
from startup_kits.spec import load_spec

EXPLAINED = {
    "engine": "the `pulumi` command that makes resources in real clouds",
    "plugins": "the provider plugins that it loads, in the versions that the stacks are written for",
    "backend": "where the state of the stacks lies; FEDSPAN_BACKEND names another place",
    "passphrase": "what encrypts the stacks' secrets; lost, no engine can change or take them down",
    "spec": "federation.yml",
    "deployment": "what is deployed already, and where",
    "kits": "each participant's signed startup kit",
    "credentials": "whose account or subscription will be used, and for how long",
    "region": "whether the account may use the region",
    "provider": "Azure: what a subscription must have switched on",
    "roles": "Azure: whether you may give a machine the right to deallocate itself (self_deallocate)",
    "image": "what the machine boots",
    "size": "whether the size is offered to this account there, and in which zones",
    "quota": "how many vCPUs, networks, gateways and addresses the account may use there",
    "rules": "how many networks may reach the machine, and how many a security group takes",
    "names": "whether a name that must be free is taken",
    "address": "from where SSH will be open: it must be where you are, and is never the world",
    "clock": "signatures and certificates carry the time",
    "host": "whether a machine of yours lets us log in",
    "machine": "what it has: Python, processors, room",
    "runtime": "what keeps the runtime running there",
    "way to the server": "whether it reaches the server, through a proxy where there is one",
    "TLS": "whether anybody on the way opens the connection to read it",
}


def examine(names: list[str]) -> list[Finding]:
    """All findings, in the order of `EXPLAINED`; what is wrong is a finding and never an exception."""
    found = list(_examined(names))
    order = list(EXPLAINED)
    return sorted(found, key=lambda one: order.index(one.subject) if one.subject in order else len(order))


def _examined(names: list[str]) -> Iterable[Finding]:
    kind = "sandbox" if context.options().sandbox else "real"
    yield from engine.check_command(kind, environ)
    try:
        workspace = context.workspace()
        spec = load_spec(workspace.spec_path)
    except FedspanError as error:
        yield from_error("spec", error)
        return
    yield Finding("spec", f"{workspace.spec_path} is in order")
    clouds = {part.target for part in spec.participants().values()} & {"aws", "azure"}
    yield from engine.check_plugins(kind, clouds, environ)
    try:
        workspace.ensure()
        deployment = lead(workspace, spec, realms.current(), complete=False)
        members = deployment.chosen(names)
    except FedspanError as error:
        yield from_error("kits" if type(error).__name__ == "KitError" else "deployment", error)
        return
    yield from engine.check_backend(deployment.home)
    yield from _kits(members, workspace)
    try:
        with exclusive(deployment.state_dir, "doctor"):
            deployment.bind()
            yield from _clouds(deployment, [member for member in members if member.cloud])
            yield from check_hosts(deployment, members)
    except FedspanError as error:
        yield from_error("deployment", error)


def _kits(members: list[Member], workspace: object) -> Iterable[Finding]:
    from startup_kits.provision import ca_fingerprint
    from startup_kits.workspace import Workspace

    assert isinstance(workspace, Workspace), "the caller's"
    made = [member for member in members if member.kit.is_dir()]
    yield from local.check_kits(made, ca_fingerprint(workspace))
    for member in members:
        if member not in made:
            told = "there is no kit yet"
            yield Finding("kits", told, "warning", member.name, "`fedspan up` makes it", "fedspan provision")


def _clouds(deployment: Deployment, members: list[Member]) -> Iterable[Finding]:
    planner = Planner(deployment, addresses=deployment.addresses())
    candidates = []
    for member in members:
        try:
            access = deployment.realm.access(member.cloud or "", member)
            args = planner.arguments(Part(member, access=access))
        except FedspanError as error:
            subject = {"CredentialsError": "credentials", "UnreachableError": "address"}.get(
                type(error).__name__, "spec"
            )
            yield from_error(subject, error, member.name)
            continue
        row = deployment.ledger.participant(member.name)
        assert member.cloud is not None, "only those in a cloud"
        if row is None or row.phase in NOTHING_THERE:
            candidates.append(Candidate(member, args, access, Counter(e.type for e in describe(member.cloud, args))))
        else:
            candidates.append(Candidate(member, args, access, *from_row(member.cloud, row, args)))
            yield Finding("deployment", f"{row.phase}, at {row.address or 'no address yet'}", participant=member.name)
    yield from check(deployment, candidates).findings
