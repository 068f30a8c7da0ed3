"""Which lines of a log: by number and by time, in the journal as in files."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from deployer.durations import parse_since
from deployer.errors import UsageError
from deployer.logs import LogRequest, _Since, log_argv

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", "2026-11-21T11:59:30+00:00"),
        ("10m", "2026-11-21T11:50:00+00:00"),
        ("2h", "2026-11-21T10:00:00+00:00"),
        ("1d", "2026-11-20T12:00:00+00:00"),
        ("2026-11-21T09:00", "2026-11-21T09:00:00+00:00"),
        ("2026-11-21T09:00:00Z", "2026-11-21T09:00:00+00:00"),
        ("2026-11-21T09:00:00+02:00", "2026-11-21T09:00:00+02:00"),
    ],
)
def test_times_are_read_as_people_write_them(text: str, expected: str) -> None:
    assert parse_since(text, NOW).isoformat() == expected


@pytest.mark.parametrize("text", ["yesterday", "10", "", "-5m", "5 m"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="--since 10m"):
        parse_since(text, NOW)


def test_the_journal_is_asked_for_the_unit() -> None:
    argv = log_argv(LogRequest(50, NOW, follow=True), journal=True, path="/x")
    assert argv[:3] == ["journalctl", "--unit", "fedspan-runtime.service"]
    assert argv[-1] == "--follow"
    assert argv[argv.index("--lines") + 1] == "50"
    assert argv[argv.index("--since") + 1] == f"@{NOW.timestamp():.0f}"


def test_files_are_followed_by_name_through_rotation() -> None:
    assert log_argv(LogRequest(7, None, follow=True), journal=False, path="/x") == ["tail", "-n", "7", "-F", "/x"]
    assert log_argv(LogRequest(7, NOW), journal=False, path="/x") == ["tail", "-n", "+1", "/x"]


def test_a_traceback_belongs_to_the_line_before_it() -> None:
    since = _Since(NOW)
    lines = [
        ("2026-11-21 11:59:59,999 INFO old", False),
        ("  its traceback", False),
        ("2026-11-21 12:00:00,000 INFO new", True),
        ("  its traceback", True),
        ("2026-11-21T12:00:01.5Z also", True),
    ]
    assert [since.passes(line) for line, _ in lines] == [passes for _, passes in lines]
