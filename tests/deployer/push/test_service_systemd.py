"""What is done on a machine that systemd runs, and as whom: the commands, in their order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from deployer.errors import MachineError
from deployer.facts import MachineFacts
from deployer.launch import Launch, Started
from deployer.push import Pushed
from deployer.service import STARTED, Service
from deployer.session_upgrade import Standing
from deployer.ssh import Completed, Machine
from deployer.unit_file import UNIT_PATH

FACTS = MachineFacts(
    root="",
    bind=None,
    python="/usr/bin/python3",
    version=(3, 12, 3),
    implementation="cpython",
    arch="x86_64",
    glibc=(2, 39),
    has_venv=True,
    systemd=True,
    user="fedspan",
    home="/home/fedspan",
    uid=1000,
    writable=False,
    sudo=True,
    cloud_init=True,
    disk_free=50 << 30,
    cpus=2,
    hostname="vm",
)
STATUS = "/opt/fedspan/venv/bin/python -m fl_runtime status"
UP = json.dumps({"running": True, "role": "site"})
LAUNCH = Launch("b" * 64, "k" * 64, "/opt/fedspan/venv-b", "fedspan runtime: site-1", "AB:CD", {"target": "aws"}, None)


@dataclass
class Scripted(Machine):
    """A machine that notes what it is told and answers from a table: the first words of a command -> its answer."""

    answers: Mapping[str, Completed | str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    name: str = "site-1"

    def facts(self) -> MachineFacts:
        return FACTS

    def run(self, argv: Sequence[str], **options: Any) -> Completed:  # type: ignore[override]  # only what is used
        line = " ".join(argv)
        self.told.append(line)
        for start, answer in self.answers.items():
            if line.removeprefix("sudo -n ").startswith(start):
                done = answer if isinstance(answer, Completed) else Completed(tuple(argv), 0, answer, "")
                break
        else:
            done = Completed(tuple(argv), 0, "", "")
        if options.get("check", True) and done.status:
            raise self.failed(done)
        return done

    def put_file(self, data: bytes, remote: str, mode: int = 0o644, **options: Any) -> Pushed:
        changed = self.files.get(remote) != data
        self.files[remote] = data
        return Pushed("", int(changed), len(data), changed)


def failing(status: int) -> Completed:
    return Completed((), status, "", "")


def test_a_machine_is_prepared_with_a_user_that_may_nothing() -> None:
    machine = Scripted(answers={"id -u": failing(1)})
    Service(machine).prepare()
    assert machine.told == [
        "systemctl cat fedspan-state.service",
        "sudo -n systemctl start fedspan-state.service",
        "id -u fedspan-runtime",
        "sudo -n useradd --system --user-group --no-create-home --home-dir /var/lib/fedspan "
        "--shell /usr/sbin/nologin fedspan-runtime",
        "sudo -n install -d -m 0750 -o fedspan-runtime -g fedspan-runtime /var/lib/fedspan /var/lib/fedspan/state",
    ]


def test_a_machine_without_a_state_volume_is_not_asked_for_it() -> None:
    machine = Scripted(answers={"systemctl cat": failing(1)})
    Service(machine).prepare()
    assert not [line for line in machine.told if "start" in line]


def test_the_unit_is_written_enabled_and_started_once() -> None:
    running = iter([3, 0])
    machine = Scripted(answers={STATUS: UP})
    real = machine.run

    def run(argv: Sequence[str], **options: Any) -> Completed:
        if "is-active" in argv:
            machine.told.append("is-active")
            return Completed(tuple(argv), next(running), "", "")
        return real(argv, **options)

    machine.run = run  # type: ignore[method-assign,assignment]  # as above
    assert Service(machine).start(LAUNCH)
    assert machine.told == [
        "systemctl cat fedspan-state.service",
        "is-active",
        "sudo -n cat /opt/fedspan/started.json",
        "sudo -n ln -sfn /opt/fedspan/venv-b /opt/fedspan/venv",
        "sudo -n systemctl daemon-reload",
        "sudo -n systemctl enable --quiet fedspan-runtime.service",
        "sudo -n systemctl restart fedspan-runtime.service",
        f"sudo -n {STATUS} --state /var/lib/fedspan/state",
    ]
    unit = machine.files[UNIT_PATH].decode()
    assert "User=fedspan-runtime" in unit
    assert "ExecStart=/opt/fedspan/venv-b/bin/python -m fl_runtime serve --kit /opt/fedspan/kit" in unit
    assert "ExecStartPre=/opt/fedspan/venv-b/bin/python -m startup_kits.verify /opt/fedspan/kit" in unit
    machine.told.clear()
    answers = {"cat /opt": machine.files[STARTED].decode()}
    again = Scripted(answers=answers, files=machine.files)
    assert not Service(again).start(LAUNCH)
    assert not [line for line in again.told if "restart" in line]


def test_a_unit_that_does_not_come_up_is_told_with_the_end_of_its_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.service.START_DEADLINE_S", 0.3)
    journal = "the port 8002 is taken by another process"
    machine = Scripted(answers={"systemctl is-active": failing(3), STATUS: failing(3), "journalctl": journal})
    with pytest.raises(MachineError) as caught:
        Service(machine).start(LAUNCH)
    assert journal in str(caught.value)
    assert "fedspan logs site-1" in str(caught.value)
    assert STARTED not in machine.files


def test_an_upgrade_whose_process_dies_again_and_again_has_not_come_up_and_can_be_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployer.service.START_DEADLINE_S", 0.3)
    first = Scripted(answers={STATUS: UP})
    Service(first).start(LAUNCH)
    answers = {"cat /opt": first.files[STARTED].decode(), STATUS: failing(3), "journalctl": "ImportError: no grpc"}
    broken = Scripted(answers=answers, files=first.files)  # systemd starts it each time anew: active, whenever asked
    with pytest.raises(MachineError) as caught:
        Service(broken).start(replace(LAUNCH, bundle="c" * 64, venv="/opt/fedspan/venv-c"))
    assert "ImportError: no grpc" in str(caught.value)
    assert "fedspan rollback site-1" in str(caught.value)
    note = Started.read(broken.files[STARTED].decode())
    assert (note.launch, note.back, note.trying) == (LAUNCH, LAUNCH, "c" * 64)
    mended = Scripted(answers={"cat /opt": note.text().decode(), STATUS: UP}, files=broken.files)
    assert Service(mended).start(LAUNCH), "it is active, but what is active is the other one"
    assert "sudo -n ln -sfn /opt/fedspan/venv-b /opt/fedspan/venv" in mended.told
    assert Started.read(mended.files[STARTED].decode()) == Started.read(answers["cat /opt"])


@pytest.mark.parametrize(
    ("note", "answers", "outdated"),
    [
        (Started("d", LAUNCH), True, False),
        (Started("d", LAUNCH), False, True),
        (Started("", LAUNCH, trying="c" * 64), True, True),
        (Started("", LAUNCH, trying="b" * 64), True, True),
        (Started("d", replace(LAUNCH, bundle="a" * 64)), True, True),
        (Started(), True, True),
    ],
)
def test_an_upgrade_has_something_to_do_until_the_wanted_runtime_runs(
    note: Started, answers: bool, outdated: bool
) -> None:
    assert Standing(None, None, note, answers, LAUNCH.bundle).outdated == outdated


def test_stop_and_removal_leave_no_unit() -> None:
    machine = Scripted()
    Service(machine).remove()
    assert machine.told[-5:] == [
        "sudo -n systemctl stop fedspan-runtime.service",
        "sudo -n systemctl disable --quiet fedspan-runtime.service",
        f"sudo -n rm -f {UNIT_PATH}",
        "sudo -n systemctl daemon-reload",
        "sudo -n rm -rf /opt/fedspan /var/lib/fedspan/state",
    ]


def test_status_of_a_machine_where_nothing_was_installed_is_none() -> None:
    machine = Scripted(answers={"/opt/fedspan/venv/bin/python": Completed((), 1, "", "sudo: …: command not found")})
    assert Service(machine).status() is None
    machine = Scripted(answers={"/opt/fedspan/venv/bin/python": json.dumps({"running": True, "role": "site"})})
    assert Service(machine).status() == {"running": True, "role": "site"}
