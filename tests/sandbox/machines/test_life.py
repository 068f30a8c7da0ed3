"""Machines are born, stop, start, crash and end as their cloud says, and take everything that ran on them along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from machine_lab import Lab, mounting, run, user_data
from waiting import until

from deployer.sandbox.machines.tree import marked, start_time

# Three ways of getting out of sight: own session, two forks, an emptied environment.
FUGITIVES = (
    "setsid sleep 301 > /dev/null 2>&1 < /dev/null &"
    " (setsid sh -c 'sleep 302 & exit' > /dev/null 2>&1 < /dev/null &);"
    " env -i setsid nohup sleep 303 > /dev/null 2>&1 < /dev/null &"
    " (trap '' TERM HUP; setsid sleep 304 > /dev/null 2>&1 < /dev/null &); sleep 0.2"
)


def started(machine: dict[str, Any]) -> list[int]:
    """Processes of the fugitives, found by whom they descend from."""
    from deployer.sandbox.machines.tree import descendants

    return [pid for pid, zombie in descendants(machine["pid"]).items() if not zombie]


def wait_for_end(pids: list[int]) -> None:
    until(lambda: not any(start_time(pid) is not None for pid in pids), what=f"the end of {pids}")


def state(lab: Lab, id: str) -> dict[str, Any]:
    return next(machine for machine in lab.machines.driver.machines() if machine["id"] == id)


def test_a_terminated_machine_leaves_no_process_and_no_folder(lab: Lab) -> None:
    machine = lab.boot()
    run(lab.ssh(machine), FUGITIVES)
    pids = started(machine)
    assert len(pids) >= 4
    lab.machines.remove(machine["id"])
    wait_for_end([machine["pid"], *pids])
    assert not Path(machine["root"]).parent.exists()


def test_stop_asks_first_and_keeps_the_disk_and_start_gives_it_back(lab: Lab) -> None:
    machine = lab.boot()
    client = lab.ssh(machine)
    run(client, "echo kept > $FEDSPAN_ROOT/opt/file; echo gone > $FEDSPAN_ROOT/tmp/file")
    run(
        client,
        "setsid sh -c 'trap \"echo asked > $FEDSPAN_ROOT/opt/asked; exit\" TERM; while :; do sleep 0.1; done'"
        " > /dev/null 2>&1 < /dev/null & sleep 0.2",
    )
    pids = started(machine)
    stopped = lab.machines.change(machine["id"], running=False)
    assert (stopped["state"], stopped["pid"], stopped["ports"]) == ("stopped", None, [])
    wait_for_end(pids)
    root = Path(machine["root"])
    assert (root / "opt/asked").read_text() == "asked\n"
    again = lab.machines.change(machine["id"], running=True)
    assert again["pid"] != machine["pid"]
    assert run(lab.ssh(again), "cat $FEDSPAN_ROOT/opt/file; ls $FEDSPAN_ROOT/tmp")[1] == b"kept\n"


@pytest.mark.slow
def test_who_does_not_listen_to_the_shutdown_is_killed(lab: Lab) -> None:
    machine = lab.boot()
    run(lab.ssh(machine), "(trap '' TERM; setsid sleep 305 > /dev/null 2>&1 < /dev/null &)")
    pids = started(machine)
    lab.machines.change(machine["id"], running=False)
    wait_for_end(pids)


def test_a_reboot_runs_the_machine_anew_on_the_same_disk(lab: Lab) -> None:
    machine = lab.boot()
    run(lab.ssh(machine), "echo kept > file")
    again = lab.machines.change(machine["id"], boots=1)
    assert again["pid"] != machine["pid"]
    assert again["host_key"] == machine["host_key"]
    assert run(lab.ssh(again), "cat file")[1] == b"kept\n"


def test_user_data_is_read_at_the_first_boot_only(lab: Lab) -> None:
    machine = lab.boot()
    lab.machines.change(machine["id"], running=False)
    lab.machines.change(machine["id"], running=True, user_data="")
    assert run(lab.ssh(machine), "true")[0] == 0


def test_a_volume_outlives_its_machine_and_a_machine_finds_it_attached_late(lab: Lab) -> None:
    machine = lab.boot(mounting())
    client = lab.ssh(machine)
    run(client, "mkdir -p $FEDSPAN_ROOT/var/lib/fedspan; echo beneath > $FEDSPAN_ROOT/var/lib/fedspan/file")
    lab.machines.change(machine["id"], volumes=(("vol-1", "/dev/sdf"),))
    assert run(client, "ls $FEDSPAN_ROOT/var/lib/fedspan; echo state > $FEDSPAN_ROOT/var/lib/fedspan/file")[1] == b""
    assert run(client, "mkdir -p $FEDSPAN_ROOT/var/lib/fedspan")[0] == 0
    sftp = client.open_sftp()
    assert sftp.listdir("/var/lib/fedspan") == ["file"]
    lab.machines.remove(machine["id"])
    replaced = lab.boot(mounting(), volumes=(("vol-1", "/dev/sdf"),))
    assert run(lab.ssh(replaced), "cat $FEDSPAN_ROOT/var/lib/fedspan/file")[1] == b"state\n"
    lab.machines.change(replaced["id"], volumes=())
    assert run(lab.ssh(replaced), "ls $FEDSPAN_ROOT/var/lib/fedspan")[0] != 0
    lab.machines.driver.reconcile(lab.machines.specs(), volumes=())
    assert list((lab.machines.home / "volumes").iterdir()) == []


def test_user_data_that_mounts_nothing_leaves_the_volume_unused(lab: Lab) -> None:
    machine = lab.boot(user_data(), volumes=(("vol-2", "/dev/sdf"),))
    assert not Path(machine["root"], "var/lib/fedspan").exists()


def test_a_killed_machine_takes_its_processes_along_and_can_be_rebooted(lab: Lab) -> None:
    machine = lab.boot()
    run(lab.ssh(machine), FUGITIVES.replace("env -i ", ""))
    pids = started(machine)
    os.kill(machine["pid"], signal.SIGKILL)
    wait_for_end([machine["pid"], *pids])
    until(lambda: state(lab, machine["id"])["state"] == "crashed")
    assert "ended (-9)" in state(lab, machine["id"])["problems"][0]
    again = lab.machines.change(machine["id"], boots=1)
    assert again["state"] == "running"
    assert run(lab.ssh(again), "true")[0] == 0


OVER = """
[Timer]
OnCalendar=2020-01-01 00:00:00 UTC
OnBootSec=0s
Unit=end.service
"""
END = """
[Service]
ExecCondition=/bin/sh -c '[ $$(date +%%s) -ge 1577836800 ]'
ExecStart=/usr/bin/systemctl poweroff
"""


def test_a_machine_that_switches_itself_off_is_stopped_and_stays_so_until_its_cloud_turns_it_on(lab: Lab) -> None:
    machine = lab.boot()
    units = "$FEDSPAN_ROOT/etc/systemd/system"
    run(lab.ssh(machine), f"mkdir -p {units}; cat > {units}/end.service", END.encode())
    run(lab.ssh(machine), f"cat > {units}/end.timer", OVER.encode())
    until(lambda: state(lab, machine["id"])["state"] == "stopped")
    assert state(lab, machine["id"])["problems"] == ["the machine switched itself off"]
    units_here = Path(machine["root"], "etc/systemd/system")
    (units_here / "end.timer").unlink()
    assert lab.machines.change(machine["id"], tags={"fedspan:participant": "site-1", "Name": "x"})["state"] == "stopped"
    lab.machines.change(machine["id"], running=False)
    again = lab.machines.change(machine["id"], running=True)
    assert (again["state"], again["problems"]) == ("running", [])
    assert run(lab.ssh(again), "true")[0] == 0


def test_machines_end_by_themselves_when_whoever_drives_them_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "drive.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from deployer.sandbox.machines.standalone import Machines\n"
        "from deployer.sandbox.model import MachineSpec\n"
        "m = Machines(Path(sys.argv[1]))\n"
        "for n in range(3):\n"
        "    d = m.put(MachineSpec(id=f'i-{n}', cloud='aws', account='1', region='r', zone=None, size='s',"
        " running=True, user_data='', public_ip=m.address()))\n"
        "    print(d['pid'], flush=True)\n"
        "time.sleep(600)\n"
    )
    home = tmp_path / "home"
    driver = subprocess.Popen([sys.executable, script, home], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pids = [int(driver.stdout.readline()) for _ in range(3)]
    driver.kill()
    driver.wait()
    wait_for_end(pids)
    assert marked(os.fsencode(f"FEDSPAN_ROOT={home}/")) == []
