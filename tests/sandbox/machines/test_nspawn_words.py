"""The nspawn driver's text and decisions, without root: filter rules, metadata, archives, what is lacking."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from deployer.errors import MissingToolError
from deployer.sandbox.machines.nspawn import firmware, image, rules, tools
from deployer.sandbox.machines.nspawn.image import Source
from deployer.sandbox.machines.nspawn.metadata import MetadataService, answer, tree
from deployer.sandbox.machines.nspawn.rules import Edge, Link
from deployer.sandbox.model import MachineSpec, Rule

SPEC = MachineSpec(
    id="i-1",
    cloud="aws",
    account="111111111111",
    region="eu-central-1",
    zone="eu-central-1a",
    size="m7i.large",
    running=True,
    user_data="#cloud-config\n",
    login_keys=(("ubuntu", "ssh-ed25519 AAAA"),),
    public_ip="198.18.0.16",
    private_ip="10.0.0.4",
)


def test_each_rule_lets_in_its_source_to_its_ports_and_a_rule_without_a_source_nobody() -> None:
    given = [
        Rule(22, 22, "tcp", "198.51.100.10/32"),
        Rule(8002, 8003, "Tcp", "*"),
        Rule(0, 0, "-1", "203.0.113.0/24"),
        Rule(0, 65535, "*", "203.0.113.9/32"),
        Rule(53, 53, "udp", "::/0"),
        Rule(1, 2, "tcp", "VirtualNetwork"),
    ]
    head = 'iifname "net0" ip daddr 10.0.0.4 ip saddr'
    assert rules.permissions(given, "10.0.0.4") == [
        f"{head} 198.51.100.10/32 tcp dport 22-22 accept",
        f"{head} 0.0.0.0/0 tcp dport 8002-8003 accept",
        f"{head} 203.0.113.0/24 accept",
        f"{head} 203.0.113.9/32 meta l4proto {{ tcp, udp }} th dport 1-65535 accept",
    ]
    assert rules.open_ports(given) == [22, 8002, 8003]


def test_a_machine_without_a_public_address_is_reached_from_its_own_network_only() -> None:
    text = rules.ruleset(Edge("10.0.0.4", None, None, "198.18.0.0/23", (Rule(22, 22, "tcp", "0.0.0.0/0"),)))
    assert 'iifname "priv0" ip daddr 10.0.0.4 ip saddr 0.0.0.0/0 tcp dport 22-22 accept' in text
    assert "net0" not in text
    assert "198.18.0.0/23" not in text
    assert "policy drop" in text


def test_a_link_is_slowed_by_half_of_its_delay_in_each_direction() -> None:
    assert rules.shaping(Link(), "net0") == []
    rate, delay = (" ".join(words) for words in rules.shaping(Link(100.0, 1.0, 8.0), "net0"))
    assert "root handle 1: tbf rate 8mbit" in rate
    assert delay.endswith("parent 1:1 handle 2: netem limit 100000 delay 50ms loss 1%")


def test_the_metadata_are_those_of_ec2() -> None:
    found = tree(SPEC, "02:00:00:00:00:01")
    assert answer(found, "/latest/meta-data/placement/availability-zone") == "eu-central-1a"
    assert answer(found, "/2021-03-23/user-data") == "#cloud-config\n"
    assert answer(found, "/latest/meta-data/public-keys/") == "0=key-0"
    assert answer(found, "/latest/meta-data/public-keys/0/openssh-key") == "ssh-ed25519 AAAA"
    assert "network/" in str(answer(found, "/latest/meta-data/")).splitlines()
    assert answer(found, "/latest/meta-data/iam/security-credentials") is None


def test_the_metadata_service_answers_by_token_only_and_not_through_a_proxy() -> None:
    service = MetadataService(lambda: tree(SPEC, "02:00:00:00:00:01"), 1, "127.0.0.1", 0)

    def ask(method: str, path: str, **headers: str) -> tuple[int, str]:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
            connection.sendall(f"{method} {path} HTTP/1.0\r\n{lines}\r\n".encode())
            head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    lifetime = {"X_aws_ec2_metadata_token_ttl_seconds": "60"}
    try:
        assert ask("GET", "/latest/meta-data/instance-id")[0] == 401
        assert ask("PUT", "/latest/api/token")[0] == 400
        assert ask("PUT", "/latest/api/token", X_Forwarded_For="10.0.0.1", **lifetime)[0] == 403
        status, token = ask("PUT", "/latest/api/token", **lifetime)
        assert status == 200
        assert ask("GET", "/latest/meta-data/instance-id", X_aws_ec2_metadata_token=token) == (200, "i-1")
        assert ask("GET", "/latest/meta-data/instance-id", X_aws_ec2_metadata_token=token + "x")[0] == 401
    finally:
        service.close()


def test_ec2_is_recognised_and_azure_gets_its_login_without_user_data() -> None:
    assert firmware.hypervisor_uuid("i-1").startswith("ec2")
    aws = firmware.first_disk(SPEC)
    assert "Ec2" in aws["/etc/cloud/cloud.cfg.d/95-datasource.cfg"][1]
    assert not [path for path, (_, text) in aws.items() if "AAAA" in text or text == SPEC.user_data]
    azure = firmware.first_disk(
        MachineSpec(**{**vars(SPEC), "cloud": "azure", "login_keys": (("clinic", "ssh-ed25519 AAAA"),)})
    )
    assert '"name": "clinic"' in azure["/etc/cloud/cloud.cfg.d/95-datasource.cfg"][1]
    assert "ssh-ed25519 AAAA" in azure[f"{firmware.SEED}/meta-data"][1]


def test_the_root_file_system_comes_from_the_distributions_own_archives() -> None:
    listing = "\n".join(
        [
            "Packages|bookworm-security|main|Debian|http://mirror/security/",
            "Packages|bookworm|main|Docker|http://other/",
            "Translations|bookworm|main|Debian|http://mirror/debian/",
            "Packages|bookworm|contrib|Debian|http://mirror/debian/",
            "Packages|trixie|main|Debian|http://mirror/debian/",
            "Packages|bookworm|main|Debian|http://mirror/debian/",
        ]
    )
    assert image.sources(listing, "bookworm") == [
        Source("http://mirror/debian/", "bookworm"),
        Source("http://mirror/security/", "bookworm-security"),
    ]


def test_without_root_or_a_tool_the_driver_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingToolError, match="need root") as refused:
        tools.require()
    assert "sudo fedspan sandbox start --driver nspawn" in str(refused.value.next_step)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    there = shutil.which
    monkeypatch.setattr(shutil, "which", lambda tool, path=None: None if tool == "debootstrap" else "/usr/bin/" + tool)
    with pytest.raises(MissingToolError, match="not installed: debootstrap") as refused:
        tools.require()
    assert refused.value.next_step == "apt-get install debootstrap"
    monkeypatch.setattr(shutil, "which", there)
