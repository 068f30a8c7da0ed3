"""The systemd unit: what it promises, and that systemd understands it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.unit_file import UNIT_NAME, UnitSpec, unit_text

SPEC = UnitSpec(
    description="fedspan runtime: site-1 of digits, 100%",
    argv=["/bin/true", "-m", "fl_runtime", "--label", 'a=b c$d%e"f'],
    user="root",
    state="/var/lib/fedspan",
    environment={"HOME": "/var/lib/fed span", "PRICE": "5$ 7%"},
    check=["/bin/true", "--ca-fingerprint", "AB:CD"],
)


def test_the_runtime_has_no_more_rights_than_it_needs() -> None:
    lines = unit_text(SPEC).splitlines()
    for line in (
        "User=root",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "CapabilityBoundingSet=",
        "ReadWritePaths=/var/lib/fedspan",
        "UMask=0077",
        "IPAddressDeny=169.254.169.254/32",
    ):
        assert line in lines


def test_on_a_machine_of_somebodys_own_jobs_may_use_the_role_that_it_has() -> None:
    text = unit_text(replace(SPEC, metadata=True))
    assert "IPAddressDeny" not in text
    assert text == unit_text(SPEC).replace("IPAddressDeny=169.254.169.254/32\n", "")


def test_it_comes_back_after_any_failure_but_not_with_a_kit_that_was_refused() -> None:
    lines = unit_text(SPEC).splitlines()
    assert "Restart=on-failure" in lines
    assert "StartLimitIntervalSec=0" in lines
    assert "RestartPreventExitStatus=4" in lines
    assert "ExecStartPre=/bin/true --ca-fingerprint AB:CD" in lines


def test_jobs_may_die_without_taking_it_along() -> None:
    lines = unit_text(SPEC).splitlines()
    assert "OOMPolicy=continue" in lines
    assert "Delegate=yes" in lines
    assert "KillMode=mixed" in lines


def test_special_characters_are_escaped_as_systemd_reads_them() -> None:
    text = unit_text(SPEC)
    assert 'ExecStart=/bin/true -m fl_runtime --label "a=b c$$d%%e\\"f"' in text
    assert 'Environment="HOME=/var/lib/fed span"' in text
    assert 'Environment="PRICE=5$ 7%%"' in text
    assert "Description=fedspan runtime: site-1 of digits, 100%%" in text
    with pytest.raises(ValueError, match="cannot stand in a unit"):
        unit_text(UnitSpec("x", ["/bin/true", "a\nExecStartPost=/bin/evil"], "u", "/s"))


def test_a_low_port_brings_one_capability_and_no_other() -> None:
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in unit_text(UnitSpec("x", ["/bin/true"], "u", "/s", port=443))
    assert "AmbientCapabilities=\n" in unit_text(UnitSpec("x", ["/bin/true"], "u", "/s", port=8002))


def test_it_waits_for_the_state_volume() -> None:
    text = unit_text(UnitSpec("x", ["/bin/true"], "u", "/var/lib/fedspan", after=["fedspan-state.service"]))
    assert "Requires=fedspan-state.service" in text
    assert "After=network-online.target fedspan-state.service" in text
    assert "RequiresMountsFor=/var/lib/fedspan" in text


def test_the_gpus_nodes_are_made_as_root_before_the_runtime_starts() -> None:
    lines = unit_text(SPEC).splitlines()
    made = next(number for number, line in enumerate(lines) if line.startswith("ExecStartPre=-+/bin/sh"))
    assert "nvidia-modprobe -u -c 0" in lines[made]
    assert made < lines.index("ExecStartPre=/bin/true --ca-fingerprint AB:CD")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_rates_its_exposure_at_most_3(tmp_path: Path) -> None:
    path = tmp_path / UNIT_NAME
    path.write_text(unit_text(UnitSpec("x", SPEC.argv, "fedspan-runtime", "/var/lib/fedspan")))
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=30", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-2:]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("port", [None, 443])
def test_systemd_itself_finds_nothing_to_say(tmp_path: Path, port: int | None) -> None:
    path = tmp_path / UNIT_NAME
    path.write_text(unit_text(UnitSpec(SPEC.description, SPEC.argv, "root", "/var/lib", port, (), SPEC.environment)))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
