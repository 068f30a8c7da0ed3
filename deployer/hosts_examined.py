"""The `host` machines of a federation, looked at by SSH before anything is done to them: a part of `fedspan doctor`."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from deployer.deployment import Deployment
from deployer.errors import FedspanError
from deployer.host_doctor import check_host
from deployer.ledger import NOTHING_THERE
from deployer.machine_run import reach_before
from deployer.member import Member
from deployer.preflight.model import Finding
from deployer.reach import reach_of
from deployer.server_address import server_endpoint
from deployer.settings import setting
from startup_kits.kit import Kit


def check_hosts(deployment: Deployment, members: Iterable[Member]) -> list[Finding]:
    """Every `host` among these, all at once. What does not answer is a finding, and nothing is pinned."""
    hosts = [member for member in members if member.target == "host" and member.kit.is_dir()]
    server = server_endpoint(deployment, deployment.addresses()) if hosts else None

    def one(host: Member) -> list[Finding]:
        return _over_ssh(deployment, host, server)

    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return [finding for found in pool.map(one, hosts) for finding in found]


def _over_ssh(deployment: Deployment, member: Member, server: str | None) -> list[Finding]:
    row = deployment.ledger.participant(member.name)
    try:
        if row is not None and row.address and row.phase not in NOTHING_THERE:
            reach = reach_of(row, deployment.state_dir / "ssh")
        else:
            reach = reach_before(deployment.keys, member)
        with reach.connect(setting("STATUS_DEADLINE"), grace=False) as machine:
            return check_host(machine, Kit.open(member.kit), server if member.role == "site" else None)
    except FedspanError as error:
        why, next_step = error.why or "", error.next_step or ""
        return [Finding("host", error.what, "refused", member.name, why, next_step, type(error))]
