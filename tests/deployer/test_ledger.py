"""The ledger remembers every step, and belongs to one realm."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deployer.errors import BusyError, RealmError
from deployer.ledger import Ledger, check_realm
from deployer.lockfile import exclusive


def test_a_ledger_that_was_never_written_is_empty_and_makes_no_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / ".fedspan" / "ledger.db")
    assert ledger.participants() == []
    assert ledger.meta("deployment") is None
    assert not ledger.exists()


def test_phases_outputs_and_events_survive_a_new_process(tmp_path: Path) -> None:
    path = tmp_path / ".fedspan" / "ledger.db"
    ledger = Ledger(path)
    ledger.record("site-1", "address", role="site", target="aws", region="eu-central-1", address="52.1.2.3")
    ledger.record("site-1", "machine", outputs={"vm_id": "i-1"}, ssh_port=22)
    ledger.record("server", "address", role="server", target="azure")
    ledger.event("site-1", "create", "ec2.Instance site-1-vm")
    ledger.close()
    again = Ledger(path)
    assert [row.name for row in again.participants()] == ["server", "site-1"]
    row = again.participant("site-1")
    assert row is not None
    assert (row.phase, row.address, row.outputs["vm_id"], row.cloud) == ("machine", "52.1.2.3", "i-1", "aws")
    assert [event.phase for event in again.events("site-1")] == ["address", "machine", "create"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_deployments_id_is_made_once(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger.db").deployment()
    assert Ledger(tmp_path / "ledger.db").deployment() == first
    assert len(first) == 8


def test_an_operation_that_did_not_end_is_known_to_the_next_process(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db").begin_operation("site-1")
    ledger = Ledger(tmp_path / "ledger.db")
    began = ledger.unclean_since("site-1")
    assert began is not None
    ledger.begin_operation("site-1")
    assert ledger.unclean_since("site-1") == began  # the first one counts
    ledger.end_operation("site-1")
    assert ledger.unclean_since("site-1") is None


def test_permissions_are_kept_until_they_are_taken_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.allow("site-2", "52.1.2.3/32")
    assert not ledger.allow("site-2", "52.1.2.3/32")
    assert ledger.allowed() == {"site-2": ["52.1.2.3/32"]}
    assert ledger.disallow("site-2") == ["52.1.2.3/32"]
    assert ledger.allowed() == {}


def test_real_and_sandbox_are_never_mixed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert check_realm(ledger, "real", "real") == []
    ledger.record("site-1", "machine", role="site", target="aws")
    with pytest.raises(RealmError, match="deployed in real clouds"):
        check_realm(ledger, "sandbox", "sandbox-1")
    ledger.record("site-1", "down")
    assert check_realm(ledger, "sandbox", "sandbox-1") == []
    ledger.record("site-1", "machine")
    with pytest.raises(RealmError, match="deployed in the sandbox"):
        check_realm(ledger, "real", "real")


def test_what_lived_in_a_dead_sandbox_is_forgotten_and_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    check_realm(ledger, "sandbox", "sandbox-1")
    ledger.record("site-1", "machine", role="site", target="aws")
    ledger.begin_operation("site-1")
    assert check_realm(ledger, "sandbox", "sandbox-2") == ["site-1"]
    assert ledger.participants() == []
    assert ledger.unclean_since("site-1") is None
    assert ledger.realm() == ("sandbox", "sandbox-2")


def test_two_commands_never_work_on_one_deployment(tmp_path: Path) -> None:
    second = exclusive(tmp_path, "down")
    with exclusive(tmp_path, "up"), pytest.raises(BusyError, match="fedspan up, process"):
        second.__enter__()
    with exclusive(tmp_path, "down"):
        pass


def test_notes_of_a_machine_stay_until_the_next_up_and_go_with_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.notes("site-1") == []
    ledger.record("site-1", "started", target="host")
    ledger.set_notes("site-1", ["edited on the machine"])
    assert ledger.notes("site-1") == ["edited on the machine"]
    ledger.record("site-1", "down")
    assert ledger.notes("site-1") == []
