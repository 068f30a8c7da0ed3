"""Global options are understood before and after the verb."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.cli.arguments import MissingValue, split


@pytest.mark.parametrize(
    "line",
    [
        ["--sandbox", "-f", "a.yml", "-y", "up", "site-1"],
        ["up", "site-1", "--sandbox", "-f", "a.yml", "-y"],
        ["up", "--file=a.yml", "--sandbox", "site-1", "--yes"],
    ],
)
def test_global_options_stand_before_or_after_the_verb(line: list[str]) -> None:
    options, rest = split(line, {})
    assert (options.sandbox, options.file, options.yes) == (True, Path("a.yml"), True)
    assert rest == ["up", "site-1"]


def test_follow_belongs_to_logs_and_not_to_the_spec() -> None:
    options, rest = split(["logs", "site-1", "-f", "--file", "b.yml"], {})
    assert rest == ["logs", "site-1", "-f"]
    assert options.file == Path("b.yml")
    options, rest = split(["-f", "b.yml", "job", "logs", "j1", "-f"], {})
    assert rest == ["job", "logs", "j1", "-f"]
    assert options.file == Path("b.yml")


def test_what_follows_ssh_and_a_participant_is_the_remote_command() -> None:
    options, rest = split(["ssh", "--sandbox", "site-1", "ls", "-y", "--json"], {})
    assert rest == ["ssh", "site-1", "ls", "-y", "--json"]
    assert options.sandbox
    assert not options.yes
    assert not options.json


def test_nothing_behind_two_dashes_is_ours() -> None:
    options, rest = split(["ssh", "site-1", "--", "cat", "-v"], {})
    assert rest == ["ssh", "site-1", "--", "cat", "-v"]
    assert not options.verbose


@pytest.mark.parametrize(("value", "on"), [("1", True), ("true", True), ("0", False), ("", False), ("no", False)])
def test_the_environment_can_switch_the_sandbox_on(value: str, on: bool) -> None:
    assert split(["up"], {"FEDSPAN_SANDBOX": value})[0].sandbox is on


def test_a_spec_option_without_a_path_is_an_error() -> None:
    with pytest.raises(MissingValue):
        split(["up", "-f"], {})
