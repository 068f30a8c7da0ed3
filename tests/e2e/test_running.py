"""A deployment while it runs: what `status`, `events` and `support-bundle` tell, and what was changed behind us."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import resource
import select
import subprocess
import tarfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from e2e_world import COMMAND, SPEC, World, copy_of, ec2

from deployer.ledger import Ledger

pytestmark = pytest.mark.slow


def lines(world: World, *words: str) -> dict[str, dict[str, Any]]:
    """What `status` says, by participant."""
    return {line["name"]: line for line in world.json("status", *words).ok().last["participants"]}


def test_status_tells_all_it_knows_in_less_than_a_second_of_work_and_needs_no_credentials(up: World) -> None:
    nobody = {"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_PROFILE": "nobody", "ARM_CLIENT_SECRET": "wrong"}
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = up.run("status", "--json", environment=nobody).ok()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {line["name"]: line for line in result.last["participants"]}
    assert found["site-1"]["runtime"] == "registered"
    assert found["site-1"]["version"] == found["server"]["version"] != ""
    assert found["site-1"]["last_seen"].endswith("Z")
    assert found["site-1"]["jobs"] == []
    assert found["site-1"]["usd"] > 0
    assert found["site-1"]["machine"] == ""  # no cloud was asked
    # its own work: how long it then waits for a busy machine is not its doing
    assert ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime <= 1.0


def test_refresh_asks_the_clouds_and_finds_no_drift(up: World) -> None:
    found = lines(up, "--refresh")
    assert {name: (line["machine"], line["drift"]) for name, line in found.items()} == {
        "server": ("running", []),
        "site-1": ("running", []),
    }
    assert "no drift" in up.run("status", "--refresh").ok().out


def test_what_was_changed_by_hand_is_shown_with_what_differs(up: World) -> None:
    cloud = ec2(up)
    (machine,) = cloud.describe_instances()["Reservations"][0]["Instances"]
    (group,) = cloud.describe_network_interfaces()["NetworkInterfaces"][0]["Groups"]
    rules = cloud.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group["GroupId"]]}])
    ssh = next(rule for rule in rules["SecurityGroupRules"] if not rule["IsEgress"])
    cloud.create_tags(Resources=[machine["InstanceId"]], Tags=[{"Key": "fedspan:owner", "Value": "somebody"}])
    cloud.revoke_security_group_ingress(GroupId=group["GroupId"], SecurityGroupRuleIds=[ssh["SecurityGroupRuleId"]])
    told = up.run("status", "--refresh").ok().out
    assert re.search(r"site-1: drift: ec2\.Instance site-1-vm: tags .*=lead@.*-> .*=somebody", told), told
    assert "site-1: drift: vpc.SecurityGroupIngressRule site-1-ssh-198-51-100-10-32: gone" in told
    assert "server: drift" not in told
    assert "next: fedspan up --refresh" in told


def test_up_refresh_puts_right_exactly_what_drifted(up: World) -> None:
    assert up.json("plan").ok().last["changes"] == 0  # the engine's own state knows nothing of it
    plan = {part["name"]: part["steps"] for part in up.json("plan", "--refresh").ok().last["participants"]}
    changes = sorted((step["action"], step["name"]) for step in plan["site-1"])
    assert changes == [("create", "site-1-ssh-198-51-100-10-32"), ("update", "site-1-vm")]
    assert plan["server"] == []
    assert up.json("up", "--refresh", "--yes").ok().last["changed"]["site-1"] == 2
    assert [line["drift"] for line in lines(up, "--refresh").values()] == [[], []]


def test_what_the_spec_says_of_a_participant_is_known_from_then_on_also_without_a_step(up: World) -> None:
    tenant = up.sandbox.azure_environment()["ARM_TENANT_ID"]
    up.write(copy_of(SPEC, server={**SPEC["server"], "tenant": tenant}))
    assert up.json("up", "--yes").ok().last["nothing_changed"] is True
    row = Ledger(up.fed / ".fedspan" / "ledger.db").participant("server")
    assert row is not None
    assert (row.outputs["tenant"], row.phase) == (tenant, "started")
    up.write(SPEC)
    assert up.json("up", "--yes").ok().last["nothing_changed"] is True
    row = Ledger(up.fed / ".fedspan" / "ledger.db").participant("server")
    assert row is not None
    assert row.outputs["tenant"] == ""


def test_watch_shows_the_table_again_on_a_terminal_until_ctrl_c(up: World) -> None:
    master, slave = pty.openpty()
    environment = {**up.environment, "TERM": "xterm", "FEDSPAN_WATCH_INTERVAL": "0.2"}
    process = subprocess.Popen(
        [*COMMAND, "status", "--watch"],
        cwd=up.fed,
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    seen = b""
    try:
        deadline = time.monotonic() + 180
        while seen.count(b"site-1") < 3 and time.monotonic() < deadline:
            if select.select([master], [], [], 1)[0]:
                seen += os.read(master, 65536)
        assert seen.count(b"site-1") >= 3, seen
        assert b"\x1b[" in seen  # it is drawn over, not printed below
        process.send_signal(2)
        with contextlib.suppress(OSError):  # a terminal reports EIO when its last user has gone
            while time.monotonic() < deadline:
                if select.select([master], [], [], 1)[0]:
                    os.read(master, 65536)
        assert process.wait(timeout=60) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)


def test_events_say_who_did_what_when(up: World) -> None:
    events = up.json("events", "--tail", "0").ok().events
    first, last = events[0], events[-1]
    assert (first["command"], first["what"], first["detail"]) == ("up", "begun", "server, site-1")
    assert "@" in first["who"]
    assert (last["command"], last["what"]) == ("up", "done")
    made = [event["resource"] for event in events if event["what"] == "create" and event["participant"] == "site-1"]
    assert "ec2.Instance site-1-vm" in made
    assert {event["participant"] for event in up.json("events", "site-1").ok().events} == {"site-1"}
    unknown = up.run("events", "site-9")
    assert unknown.code == 2
    assert "it knows server, site-1" in unknown.err


def test_the_support_bundle_holds_no_secret(up: World, tmp_path: Path) -> None:
    planted = "hunter2-swordfish"
    access = "AKIAIOSFODNN7EXAMPLE"
    web_token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbmEifQ.dBjftJeZ4CVPmB92K27uhbUJU1p1r"
    run = sorted((up.fed / ".fedspan" / "logs").iterdir())[-1]  # the newest runs are in the bundle
    secrets = [
        (up.fed / ".fedspan" / name).read_text() for name in ("ca/ca.key", "ssh/id_ed25519", "stacks/passphrase")
    ]
    secrets += [path.read_text() for path in up.kits.glob("*/startup/*.key")]
    assert len(secrets) >= 5
    with open(run / "site-1.log", "a") as log:
        log.write(f"password: {planted}\nurl https://ana:{planted}@proxy.hospital.example:3128/\n")
        log.write(f"key {access}\nAuthorization: Bearer {web_token}\n{secrets[1]}\nsecret was {secrets[2]}\n")
    machine = next(entry for entry in up.sandbox.machines() if entry["name"] == "server")
    with open(Path(machine["root"]) / "var/lib/fedspan/state/runtime.log", "a") as log:
        log.write(f"2026-11-21T09:00:00Z x-api-key={planted} of {up.environment['FEDSPAN_PASSPHRASE']}\n")
    path = tmp_path / "bundle.tar.gz"
    told = up.run("support-bundle", "--out", str(path)).ok().out
    assert "secrets taken out" in told
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    with tarfile.open(path) as archive:
        texts = {m.name: archive.extractfile(m).read().decode() for m in archive}  # type: ignore[union-attr]
    everything = "\n".join(texts.values())
    bodies = [line for secret in secrets for line in secret.splitlines() if line and not line.startswith("-----")]
    for secret in (planted, access, web_token, up.environment["FEDSPAN_PASSPHRASE"], "PRIVATE KEY", *bodies):
        assert secret not in everything, secret
    names = {name.split("/", 1)[1] for name in texts}
    assert {
        "versions.json",
        "federation.yml",
        "status.json",
        "events.jsonl",
        "kits.txt",
        "machines/server.log",
    } <= names
    assert json.loads(texts["bundle/status.json"])["federation"] == "digits"
    assert "[redacted]" in texts["bundle/machines/server.log"]
    assert "proxy.hospital.example:3128" in everything


def test_stopped_machines_keep_their_addresses_and_start_brings_them_back(up: World) -> None:
    before = {machine["name"]: machine for machine in up.sandbox.machines()}
    busy = up.json("stop", "--idle", "2h", "--yes").ok().last["states"]
    assert {state.split(":")[0] for state in busy.values()} == {"left on"}
    refused = up.run("stop")
    assert refused.code == 13
    assert "Disks and addresses stay" in refused.err
    assert up.json("stop", "--yes").ok().last["states"] == {"server": "stopped", "site-1": "stopped"}
    off = lines(up, "--refresh")
    assert {line["machine"] for line in off.values()} == {"stopped", "deallocated"}
    assert [line["runtime"] for line in off.values()] == ["", ""]
    told = up.run("status").ok().out
    assert "off, but disks and addresses go on costing: server, site-1" in told
    upgrade = up.run("upgrade")
    assert upgrade.code == 13
    assert "next: fedspan start server site-1" in upgrade.err
    assert set(up.json("start").ok().last["states"]) == {"server", "site-1"}
    after = {machine["name"]: machine for machine in up.sandbox.machines()}
    for name, machine in after.items():
        assert (machine["id"], machine["public_ip"]) == (before[name]["id"], before[name]["public_ip"])
    assert lines(up)["site-1"]["runtime"] == "registered"
    spent = lines(up)["site-1"]
    assert spent["seconds_on"] < time.time() - up_since(spent)


def up_since(line: dict[str, Any]) -> float:
    """When it was deployed, seconds since the epoch."""
    return datetime.fromisoformat(line["since"].replace("Z", "+00:00")).timestamp()


@pytest.mark.parametrize("words", [["--refresh"], []])
def test_up_turns_on_what_was_stopped_whatever_else_it_does(up: World, words: list[str]) -> None:
    up.run("stop", "--yes").ok()
    assert [line["phase"] for line in lines(up).values()] == ["stopped", "stopped"]
    if not words:  # with a change to both machines
        spec = copy_of(up.spec)
        spec["server"]["size"], spec["sites"]["site-1"]["size"] = "Standard_D2s_v5", "m7i.xlarge"
        up.write(spec)
    assert up.json("up", *words, "--yes").ok().last["registered"] == ["site-1"]
    assert [line["machine"] for line in lines(up, "--refresh").values()] == ["running", "running"]


def test_up_turns_on_a_machine_that_somebody_else_turned_off(up: World) -> None:
    (machine,) = [one for group in ec2(up).describe_instances()["Reservations"] for one in group["Instances"]]
    ec2(up).stop_instances(InstanceIds=[machine["InstanceId"]])
    ec2(up).get_waiter("instance_stopped").wait(
        InstanceIds=[machine["InstanceId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    assert up.json("up", "--yes").ok().last["registered"] == ["site-1"]
    ec2(up).terminate_instances(InstanceIds=[machine["InstanceId"]])
    spec = copy_of(up.spec)
    spec["defaults"]["ssh_from"] = ["198.51.100.10/32", "203.0.113.0/24"]
    up.write(spec)  # its rules change in the same up
    gone = up.run("up", "--yes")  # told at once, not after a wait for its SSH
    assert gone.code == 7
    assert "site-1: the machine is gone\n  next: fedspan up site-1 --refresh" in gone.err
