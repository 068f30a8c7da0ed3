"""What `doctor` finds out about a machine of somebody's own, over real SSH and a real handshake."""

from __future__ import annotations

from pathlib import Path

from deployer.host_doctor import check_host
from deployer.preflight.model import Finding
from deployer.ssh import Machine
from startup_kits.kit import Kit
from tests.deployer.kit_servers import listening, tls_of


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_a_machine_without_systemd_and_root_is_told_with_what_that_means(login: Machine, made: Path) -> None:
    with listening(tls_of(made / "server")) as port:
        found = by_subject(check_host(login, Kit.open(made / "site-1"), f"127.0.0.1:{port}"))
    assert found["machine"].level == "ok"
    assert found["clock"].level == "ok"
    assert (found["runtime"].level, found["runtime"].next_step) == ("warning", "after a reboot: fedspan up site-1")
    assert found["way to the server"].level == "ok"
    assert "nobody opens TLS" in found["TLS"].what
    assert {finding.participant for finding in found.values()} == {"site-1"}


def test_a_machine_that_does_not_reach_the_server_says_what_to_open(login: Machine, made: Path) -> None:
    with listening(tls_of(made / "server")) as port:
        pass
    found = by_subject(check_host(login, Kit.open(made / "site-1"), f"127.0.0.1:{port}"))
    way = found["way to the server"]
    assert (way.level, way.next_step) == ("refused", f"open TCP from this machine to 127.0.0.1:{port}")
