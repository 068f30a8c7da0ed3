"""A way out that is restricted leads to the server's address, never to one that stands for an unknown one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer.deployment import lead
from deployer.errors import SpecError
from deployer.plan_make import Planner
from startup_kits.kit import Kit
from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import provision
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace

SPEC = """\
version: 1
name: digits
server: {SERVER}
sites: {site-1: {target: aws, region: eu-central-1, size: m7i.large, egress: restricted}}
admins: {ana@hospital-a.example: {role: lead}}
"""


def planner(folder: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> Planner:
    """The planner of a federation with that server, whose kits are made."""
    monkeypatch.setenv("FEDSPAN_PASSPHRASE", "correct horse battery staple")
    (folder / "federation.yml").write_text(SPEC.replace("{SERVER}", server))
    workspace = Workspace.find(folder / "federation.yml")
    spec = load_spec(workspace.spec_path)
    provision(workspace, spec, PassphraseSource.for_terminal(workspace.passphrase_path, None))
    realm: Any = None
    return Planner(lead(workspace, spec, realm))


def way(found: Planner) -> str:
    return str(found._way_to_server(found.deployment.members["site-1"])["server_cidr"])


@pytest.mark.parametrize(
    ("server", "next_step"),
    [
        ("{target: kit}", "kits/site-1/local/endpoint.yml"),
        ("{target: kit, hostname: fl.hospital-a.example}", "no server.hostname"),
        ("{target: host, host: fl.hospital-a.example, user: ana}", "server.host: with its IPv4 address"),
    ],
)
@pytest.mark.parametrize("final", [False, True])
def test_a_server_with_nothing_but_a_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, next_step: str, final: bool
) -> None:
    found = planner(tmp_path, monkeypatch, server)
    found.final = final
    site = found.deployment.members["site-1"]
    Kit.open(site.kit).set_endpoint("fl.hospital-a.example:8002")
    with pytest.raises(SpecError, match="site-1: egress: restricted needs the server's address") as caught:
        found.check_way(site)
    assert next_step in (caught.value.next_step or "")


@pytest.mark.parametrize("server", ["{target: kit}", "{target: host, host: 203.0.113.9, user: ana}"])
def test_an_address_is_taken_from_the_spec_or_from_the_kit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    found = planner(tmp_path, monkeypatch, server)
    site = found.deployment.members["site-1"]
    Kit.open(site.kit).set_endpoint("203.0.113.9:8002")
    found.check_way(site)
    assert way(found) == "203.0.113.9/32"


def test_the_address_of_a_server_in_a_cloud_is_waited_for_until_rules_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planner(tmp_path, monkeypatch, "{target: azure, region: westeurope}")
    site = found.deployment.members["site-1"]
    assert way(found).startswith("192.0.2.")  # a plan's, for what `up` learns
    found.final = True
    with pytest.raises(SpecError, match="none is known") as caught:
        found.check_way(site)
    assert caught.value.next_step == "fedspan up server"
    found.addresses["server"] = "203.0.113.9"
    found.check_way(site)
    assert way(found) == "203.0.113.9/32"
    found.check_way(replace(site, egress_restricted=False))
