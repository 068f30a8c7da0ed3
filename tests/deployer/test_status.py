"""What `status` says of a site that its owner runs, and of an `up` that did not come to its end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from deployer import status
from deployer.drain import idle_seconds
from deployer.expiry import azure_schedule, expiry_of, in_words, note_told, set_expiry
from deployer.idle import idle_of, note_seen, set_idle
from deployer.ledger import Event, Ledger, Row
from deployer.look import CloudView
from deployer.spent import billed_until, seconds_on


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One that was never written to."""
    return Ledger(tmp_path / "ledger.db")


@pytest.mark.parametrize(
    ("peer", "host"),
    [("ipv4:52.1.2.3:50880", "52.1.2.3"), ("ipv6:%5B::1%5D:50880", "::1"), ("52.1.2.3", "52.1.2.3"), ("", "")],
)
def test_an_address_is_told_without_grpcs_words(peer: str, host: str) -> None:
    assert status.peer_host(peer) == host


def line_of(site: dict[str, Any]) -> status.Line:
    """The line of a site that its owner runs."""
    return status._line(Row("site-1", "site", "kit", "awaited"), {"sites": {}}, {"site-1": site}, None)


def test_a_site_that_its_owner_started_is_awaited_no_more() -> None:
    registered = line_of({"registered": True, "address": "ipv4:127.0.0.1:50880"})
    assert (registered.phase, registered.runtime, registered.address) == ("registered", "registered", "127.0.0.1")
    lost = line_of({"registered": False, "last_seen": "2026-11-21T09:00:00Z"})
    assert lost.phase == "registered"
    assert lost.runtime.startswith("lost ")
    assert line_of({"registered": False}).phase == "awaited"


def test_an_up_that_was_interrupted_says_how_it_goes_on(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record("server", "allocating", role="server", target="aws", region="eu-central-1")
    found = status.collect(ledger, tmp_path / "ssh", "digits")
    assert found.lines[0].runtime == ""
    assert "next: fedspan up goes on from there" in found.trouble


def test_times_in_json_are_iso_and_null_for_never(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record("server", "allocating", role="server", target="aws")
    found = status.collect(ledger, tmp_path / "ssh", "digits", [("site-1", "site", "kit")]).document()
    times = {line["name"]: line["since"] for line in found["participants"]}
    assert times["site-1"] is None
    assert times["server"].startswith("20")
    assert times["server"].endswith("Z")


def test_a_machine_costs_the_hours_that_it_was_on() -> None:
    def event(at: float, phase: str, name: str = "site-1") -> Event:
        return Event(at, name, phase, "", "")

    events = [event(0, "machine"), event(3600, "stopped"), event(5000, "stopped", "server"), event(9000, "started")]
    assert seconds_on(events, "site-1", since=0, now=10_000) == 3600 + 1000
    assert seconds_on(events, "site-1", since=8000, now=10_000) == 2000
    assert seconds_on(events[:2], "site-1", since=0, now=10_000) == 3600


def test_a_machine_that_ended_itself_costs_nothing_any_more() -> None:
    events = [Event(0, "site-1", "started", "", "", verb="up"), Event(9000, "site-1", "started", "", "", verb="up")]
    assert seconds_on(events[:1], "site-1", since=0, now=10_000, end=4000) == 4000
    assert seconds_on(events[:1], "site-1", since=0, now=3000, end=4000) == 3000
    assert seconds_on(events, "site-1", since=0, now=10_000, end=4000) == 4000 + 1000
    assert seconds_on(events, "site-1", since=8000, now=10_000, end=4000) == 2000


def test_an_end_that_is_over_is_remembered_when_another_one_or_none_takes_its_place(ledger: Ledger) -> None:
    ledger.record("site-1", "started", role="site", target="aws")
    over, ahead = int(time.time()) - 60, int(time.time()) + 3600
    set_expiry(ledger, "site-1", over)
    note_told(ledger, "site-1", over)
    set_expiry(ledger, "site-1", ahead)
    set_expiry(ledger, "site-1", None)
    set_expiry(ledger, "site-1", None)
    found = [event for event in ledger.events("site-1") if event.phase == "stopped"]
    assert [(event.at, event.detail) for event in found] == [(over, "it ended itself")]
    assert expiry_of(ledger, "site-1") is None
    later = [Event(9000, "site-1", "down", "", ""), Event(4000, "site-1", "stopped", "", "")]
    assert seconds_on(later, "site-1", since=0, now=10_000) == 4000


def test_azures_bill_ends_with_the_machine_only_where_its_own_shutdown_was_armed() -> None:
    def row(target: str, **outputs: str | bool) -> Row:
        return Row("site-1", "site", target, "started", outputs=outputs)

    expires = 10 * 86_400.0  # at midnight
    assert billed_until(row("aws"), expires, told=True) == expires
    assert billed_until(row("azure"), expires, told=True) is None
    assert billed_until(row("azure", deallocate_at="0000"), expires, told=False) == expires  # Azure itself knows
    assert (
        billed_until(row("azure", deallocate_at="0500"), expires, told=True) is None
    )  # of an end that was moved since
    assert billed_until(row("azure", self_deallocate=True), expires, told=True) == expires
    assert billed_until(row("azure", self_deallocate=True), None, told=True) is None
    assert billed_until(row("aws"), None, told=True) is None
    assert billed_until(row("azure", deallocate_at="0000"), None, told=True) is None
    for one in (row("aws"), row("azure", self_deallocate=True)):
        assert billed_until(one, expires, told=False) is None


@pytest.mark.parametrize(("schedule", "told"), [({}, False), ({"deallocate_at": True}, True)])
def test_the_end_of_azures_bill_is_promised_by_what_stands_in_the_stack_and_never_by_the_clock(
    ledger: Ledger, tmp_path: Path, schedule: dict[str, bool], told: bool
) -> None:
    """On the last day too: `up --ttl 24h` arms nothing, nor does `--ttl 3d` until somebody types `up` again."""
    at = time.time() + 3600
    outputs = {"deallocate_at": azure_schedule(at, time.time())} if schedule else {}
    ledger.record("site-1", "started", role="site", target="azure", outputs=outputs)
    set_expiry(ledger, "site-1", at)
    note_told(ledger, "site-1", at)
    ledger.event("site-1", "started")
    (line,) = status.collect(ledger, tmp_path / "ssh", "digits").lines
    assert (line.bill_ends is not None) is told
    words = in_words(at, time.time(), "azure", armed=line.bill_ends is not None)
    assert words.startswith("ends itself" if told else "powers itself off")
    assert ("Azure bills it on until fedspan stop" in words) is not told


def test_an_end_of_which_the_machine_was_never_told_is_no_end_of_its_bill(ledger: Ledger, tmp_path: Path) -> None:
    """`up --ttl` was killed, or nobody could log in, between the machine and its timer; or another machine was made."""

    def said(at: float) -> str:
        set_expiry(ledger, "site-1", at)
        (line,) = status.collect(ledger, tmp_path / "ssh", "digits").lines
        assert line.bill_ends is None
        assert line.seconds_on == pytest.approx(time.time() - line.since, abs=5)
        return in_words(at, time.time(), "aws", told=line.end_told)

    ledger.record("site-1", "machine", role="site", target="aws", address="52.1.2.3")
    assert "is to end at" in said(time.time() + 3600)
    assert "was to end at" in (words := said(time.time() - 60))
    assert "its machine was not told: it runs on\n  next: fedspan up" in words
    assert [event for event in ledger.events("site-1") if event.phase == "stopped"] == []
    at = time.time() + 3600
    set_expiry(ledger, "site-1", at)
    note_told(ledger, "site-1", at)
    (line,) = status.collect(ledger, tmp_path / "ssh", "digits").lines
    assert line.bill_ends == int(at)
    note_told(ledger, "site-1", None)  # another machine is made
    (line,) = status.collect(ledger, tmp_path / "ssh", "digits").lines
    assert line.bill_ends is None


def test_a_machine_seen_to_be_off_has_turned_itself_off_only_where_its_spec_said_so(ledger: Ledger) -> None:
    for name, target in (("site-1", "aws"), ("site-2", "azure"), ("site-3", "aws"), ("site-4", "aws")):
        ledger.record(name, "registered", role="site", target=target)
        set_idle(ledger, name, None if name == "site-3" else 7200)

    def seen(**machines: str) -> list[str]:
        return note_seen(ledger, {name.replace("_", "-"): CloudView(machine) for name, machine in machines.items()})

    assert seen(site_1="running", site_2="stopped", site_3="stopped", site_4="") == []  # Azure bills on what is stopped
    assert seen(site_1="stopped", site_2="deallocated", site_4="gone") == ["site-1", "site-2", "site-4"]
    assert seen(site_1="stopped", site_2="deallocated", site_4="gone") == []
    events = [(event.participant, event.detail) for event in ledger.events() if event.phase == "stopped"]
    assert events == [(f"site-{n}", "it turned itself off: no job ran for 2 h") for n in (1, 2, 4)]
    ledger.forget_all()
    assert idle_of(ledger, "site-1") is None


def test_idle_is_counted_from_the_last_jobs_end() -> None:
    assert idle_seconds({"jobs": []}, since=100, now=400) == 300
    ended = {"id": "a", "state": "FINISHED", "ended": "1970-01-01T00:03:20Z"}
    assert idle_seconds({"jobs": [ended]}, since=100, now=400) == 200
    assert idle_seconds({"jobs": [ended, {"id": "b", "state": "RUNNING"}]}, since=100, now=400) == 0
