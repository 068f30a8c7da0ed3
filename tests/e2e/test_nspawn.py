"""A federation on systems of their own: systemd, cloud-init, sshd, packet filters. The tests build on one another."""

from __future__ import annotations

import json
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from e2e_world import SPEC, World, copy_of
from nspawn_world import PATIENCE_S, on, reboot, run_job, states
from waiting import until

from deployer.sandbox.machines.nspawn import tools

pytestmark = pytest.mark.slow

UNIT = "fedspan-runtime.service"
SERVER_PORT = 8002
NSPAWN = copy_of(
    SPEC,
    server={"target": "aws", "region": "eu-central-1", "size": "m7i.large"},
    sites={"site-1": {"target": "azure", "region": "westeurope", "size": "Standard_D4s_v5"}},
)
PROBE = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def ask(target):
    address, port = target.split(":")
    try:
        socket.create_connection((address, int(port)), timeout=3).close()
        return "open"
    except OSError:
        return "closed"
print(*ThreadPoolExecutor(16).map(ask, sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def up(nspawn: World) -> World:
    """A server at AWS and a site at Azure, registered."""
    nspawn.write(NSPAWN)
    assert "registered: site-1" in nspawn.run("up", "--yes").ok().out
    return nspawn


def addresses(world: World) -> dict[str, str]:
    return {machine["name"]: machine["public_ip"] for machine in world.sandbox.machines()}


def registered(world: World) -> bool:
    told = world.json("status")
    lines = {line["name"]: line for line in told.last.get("participants", [])} if told.code == 0 else {}
    return lines.get("site-1", {}).get("runtime") == "registered"


def test_the_bundle_alone_was_enough(up: World) -> None:
    """No internet, no venv package, no pip: everything that runs was pushed."""
    for name in ("server", "site-1"):
        assert on(up, name, "python3", "-c", "import importlib.util as u; print(u.find_spec('ensurepip'))") == "None"
        assert on(up, name, "cloud-init", "status") == "status: done"
        assert on(up, name, "findmnt", "-no", "FSTYPE", "/var/lib/fedspan") == "ext4"
        assert on(up, name, "systemctl", "--failed", "--no-legend") == ""
    assert "DataSourceEc2" in on(up, "server", "cloud-init", "status", "--long")


def test_the_unit_is_what_systemd_calls_safe(up: World) -> None:
    for name in ("server", "site-1"):
        path = f"/etc/systemd/system/{UNIT}"
        verified = up.run("ssh", name, "--", "systemd-analyze", "verify", path)
        assert (verified.code, verified.out) == (0, "")
        rating = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=30", path]
        assert up.run("ssh", name, "--", *rating).code == 0
        wanted = {
            "User": "fedspan-runtime",
            "Delegate": "yes",
            "OOMPolicy": "continue",
            "KillMode": "mixed",
            "StartLimitIntervalUSec": "0",
            "ActiveState": "active",
        }
        shown = on(up, name, "systemctl", "show", UNIT, "-p", ",".join(wanted))
        assert dict(line.split("=", 1) for line in shown.splitlines()) == wanted


def test_security_updates_install_themselves(up: World) -> None:
    for name in ("server", "site-1"):
        assert on(up, name, "systemctl", "is-enabled", "unattended-upgrades") == "enabled"
        assert 'Unattended-Upgrade "1"' in on(up, name, "apt-config", "dump", "APT::Periodic::Unattended-Upgrade")


def test_open_is_what_the_plan_says_and_nothing_else(up: World) -> None:
    """Listening, from inside; answering, from this workstation and from the other machine."""
    plan = {part["name"]: part for part in up.json("plan").ok().last["participants"]}
    planned = {name: {opening["port"] for opening in part["open"]} for name, part in plan.items()}
    assert planned == {"server": {22, SERVER_PORT}, "site-1": {22}}
    where = addresses(up)
    tried = [22, 80, 111, 443, 2222, 5355, SERVER_PORT, SERVER_PORT + 1, 8443]
    for name, address in where.items():
        listening = on(up, name, "ss", "-Hltn").splitlines()
        reachable = {line.split()[3] for line in listening if not line.split()[3].startswith(("127.", "[::1]"))}
        assert {int(entry.rsplit(":", 1)[1]) for entry in reachable} == planned[name]
        # This workstation is the operator's for SSH and an admin's for the server.
        with ThreadPoolExecutor(len(tried)) as pool:
            open_here = list(pool.map(lambda port, its=address: answers(its, port), tried))
        assert {port for port, its in zip(tried, open_here, strict=True) if its} == planned[name]
    seen = on(up, "site-1", "python3", "-c", PROBE, *(f"{where['server']}:{port}" for port in tried)).split()
    assert [port for port, word in zip(tried, seen, strict=True) if word == "open"] == [SERVER_PORT]
    seen = on(up, "server", "python3", "-c", PROBE, *(f"{where['site-1']}:{port}" for port in tried)).split()
    assert set(seen) == {"closed"}


def answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=3).close()
    except OSError:
        return False
    return True


def test_the_host_key_that_user_data_brought_is_dead(up: World) -> None:
    for machine in up.sandbox.machines():
        setup = json.loads((Path(machine["root"]).parent / "setup.json").read_text())
        shown = machine["host_key"].split()[1]
        assert shown not in setup["machine"]["user_data"]


def test_a_job_runs(up: World, tmp_path: Path) -> None:
    run_job(up, tmp_path)
    assert states(up) == [("quick", "FINISHED")]


def test_a_killed_runtime_comes_back(up: World) -> None:
    before = on(up, "server", "systemctl", "show", UNIT, "-p", "MainPID", "--value")
    on(up, "server", "sudo", "-n", "systemctl", "kill", "--signal=KILL", "--kill-who=main", UNIT)

    def again() -> bool:
        state = on(up, "server", "systemctl", "show", UNIT, "-p", "MainPID,ActiveState")
        return "ActiveState=active" in state and f"MainPID={before}\n" not in f"{state}\n"

    until(again, PATIENCE_S, "the restart")
    until(lambda: registered(up), PATIENCE_S, "the registration")


def test_the_gpus_nodes_are_there_before_the_runtime_after_a_reboot(up: World) -> None:
    """Programs that stand in for NVIDIA's write down who calls them, and whether the runtime is there yet."""
    fake = (
        "#!/bin/sh\necho $(basename $0) $(id -u) "
        "$(systemctl show fedspan-runtime -p MainPID --value) >> /var/log/gpu-calls\n"
    )
    put = "import sys; [open(f'/usr/bin/{n}', 'w').write(sys.argv[1]) for n in ('nvidia-smi', 'nvidia-modprobe')]"
    on(up, "site-1", "sudo", "-n", "python3", "-c", put, fake)
    on(up, "site-1", "sudo", "-n", "chmod", "755", "/usr/bin/nvidia-smi", "/usr/bin/nvidia-modprobe")
    reboot(up, "site-1")
    until(lambda: registered(up), PATIENCE_S, "the registration")
    calls = on(up, "site-1", "sudo", "-n", "cat", "/var/log/gpu-calls").splitlines()
    assert calls[:2] == ["nvidia-smi 0 0", "nvidia-modprobe 0 0"]  # as root, before there is a main process


def test_a_replaced_server_has_its_address_its_state_and_its_jobs(up: World) -> None:
    """Another SSH port is other user-data, and EC2 reads that only in a new machine."""
    before = {machine["name"]: machine for machine in up.sandbox.machines()}
    spec = copy_of(NSPAWN)
    spec["server"]["ssh_port"] = 2200
    up.write(spec)
    assert "registered: site-1" in up.run("up", "--yes").ok().out
    after = {machine["name"]: machine for machine in up.sandbox.machines()}
    assert after["server"]["id"] != before["server"]["id"]
    assert after["site-1"]["id"] == before["site-1"]["id"]
    assert after["server"]["public_ip"] == before["server"]["public_ip"]
    assert states(up) == [("quick", "FINISHED")]
    assert not answers(after["server"]["public_ip"], 22)
    assert answers(after["server"]["public_ip"], 2200)


def test_down_leaves_nothing_in_the_clouds_and_stop_nothing_on_the_computer(up: World) -> None:
    block = up.sandbox.status()["addresses"]
    home = up.environment["FEDSPAN_SANDBOX_HOME"]
    note = json.loads(Path(home, "nspawn.json").read_text())["namespace"]
    assert "0 left" in up.run("down", "--yes").ok().out
    assert up.inventory() == []
    assert up.sandbox.settle()
    assert up.sandbox.machines() == []
    assert home not in traces()
    up.run("sandbox", "stop").ok()
    left = traces()
    assert note not in left
    assert block not in left
    assert home not in left


def traces() -> str:
    """Namespaces, links, routes, filters, loop devices, mounts, control groups and machined's list of this computer."""
    commands: list[list[str]] = [["ip", "netns"], ["ip", "link"], ["ip", "route"], ["nft", "list", "ruleset"]]
    commands += [["losetup", "--list"], ["mount"], ["find", "/sys/fs/cgroup", "-name", "fedspan-*"]]
    commands += [["ls", "/run/systemd/nspawn/propagate", "/run/systemd/machines"]]
    shown = [
        subprocess.run(argv, capture_output=True, text=True, env=tools.environment(), check=False).stdout
        for argv in commands
    ]
    return "\n".join(shown)
