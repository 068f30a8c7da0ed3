"""The timer that ends a machine: what systemd makes of it, and when Azure's own shutdown is armed."""

from __future__ import annotations

import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from deployer.deallocation import Deallocation
from deployer.errors import UsageError
from deployer.expiry import azure_schedule, in_words
from deployer.expiry_units import GRACE_S, SERVICE, TIMER, calendar, parse_ttl, service_text, stamp, timer_text
from deployer.realm import Management
from deployer.sandbox.machines.timer import end_of
from deployer.session_extend import new_end

AT = datetime(2026, 11, 30, 5, 0, 7, tzinfo=timezone.utc).timestamp()
analyze = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(analyze is None, reason="systemd-analyze is not installed")


@needs_systemd
@pytest.mark.parametrize("deallocate", [(), ("/usr/bin/python3", "-I", "/usr/local/lib/fedspan/deallocate.py")])
def test_systemd_takes_the_units_without_a_word(tmp_path: Path, deallocate: tuple[str, ...]) -> None:
    (tmp_path / TIMER).write_text(timer_text(AT))
    (tmp_path / SERVICE).write_text(service_text(AT, deallocate))
    argv = [str(analyze), "verify", "--man=no", str(tmp_path / TIMER), str(tmp_path / SERVICE)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    about = [line for line in (done.stdout + done.stderr).splitlines() if str(tmp_path) in line or "expiry" in line]
    assert about == []


def test_a_machine_that_can_not_deallocate_itself_powers_off_all_the_same() -> None:
    how = Deallocation("/subscriptions/s/virtualMachines/a", Management("https://arm", "http://metadata", b"pem"))
    lines = [line for line in service_text(AT, how.argv).splitlines() if line.startswith("Exec")]
    assert lines == [
        "ExecCondition=/bin/sh -c '[ $$(date +%%s) -ge " + f"{int(AT)} ]'",
        "ExecStart=-/usr/bin/python3 -I /usr/local/lib/fedspan/deallocate.py --vm /subscriptions/s/virtualMachines/a "
        "--arm https://arm --metadata http://metadata --ca /usr/local/lib/fedspan/arm-ca.crt",
        "ExecStart=/usr/bin/systemctl --no-block poweroff",
    ]
    public = Deallocation("/a", Management("https://arm", "http://metadata", None))
    assert "--ca" not in public.argv


@needs_systemd
def test_systemd_reads_the_date_as_it_was_meant() -> None:
    argv = [str(analyze), "calendar", "--base-time=2026-11-29 00:00:00 UTC", calendar(AT)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "2026-11-30 05:00:07 UTC" in done.stdout


def test_the_sandboxs_machines_obey_exactly_this_timer(tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / TIMER).write_text(timer_text(AT))
    assert end_of(tmp_path) is None  # without its service it starts nothing
    (folder / SERVICE).write_text(service_text(AT))
    assert end_of(tmp_path) == AT
    assert end_of(tmp_path, AT - 1) == AT
    assert end_of(tmp_path, AT + 7200) == AT + 7200 + GRACE_S
    (folder / TIMER).write_text(timer_text(AT).replace(f"OnBootSec={GRACE_S}s\n", ""))
    assert end_of(tmp_path) is None


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("8h", 28800), ("3d", 259200), ("60s", 60)])
def test_a_time_to_live_is_a_duration(text: str, seconds: float) -> None:
    assert parse_ttl(text) == seconds


@pytest.mark.parametrize("text", ["", "8", "8 hours", "59s", "400d", "-1h", "0h"])
def test_what_is_no_time_to_live_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no time to live"):
        parse_ttl(text)


def test_azures_daily_shutdown_is_armed_for_the_last_day_only() -> None:
    assert azure_schedule(AT, AT - 3600) == "0501"  # the minute after: the machine has powered itself off by then
    assert azure_schedule(AT, AT - 23 * 3600) == "0501"
    assert azure_schedule(AT, AT - 24 * 3600) is None  # it would fire at once
    assert azure_schedule(AT, AT - 3 * 86400) is None
    assert azure_schedule(AT, AT + 1) is None
    assert azure_schedule(None, AT) is None


def test_what_bills_on_is_said() -> None:
    assert in_words(None, AT, "aws") == ""
    assert in_words(AT, AT - 7200, "aws").startswith(f"ends itself in 2 h ({stamp(AT)}); then address and volume")
    for left in (3 * 86400, 7200):
        assert "until fedspan stop" in in_words(AT, AT - left, "azure")
        assert "; then address and volume" in in_words(AT, AT - left, "azure", armed=True)
    assert in_words(AT, AT + 1, "aws").startswith("ended itself at 2026-11-30T05:00:07Z; address and volume")
    assert "status --refresh tells whether Azure bills it on" in in_words(AT, AT + 1, "azure")
    assert "Azure bills it on" in in_words(AT, AT + 1, "azure", "stopped")
    assert "; address and volume" in in_words(AT, AT + 1, "azure", "deallocated")
    assert "should have ended itself" in in_words(AT, AT + 1, "aws", "running")


def test_an_end_is_moved_on_from_where_it_is_or_from_now() -> None:
    assert new_end(1000, 5000, "1h") == 8600
    assert new_end(9000, 5000, "1h") == 12600
    assert new_end(9000, None, "1h") == 12600
    assert new_end(9000, 10_000, "never") is None
