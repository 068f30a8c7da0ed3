"""The command is quick, imports little, and ends every error with one clear message and its exit code."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("pulumi", "pulumi_aws", "pulumi_azure_native", "grpc", "torch", "boto3", "azure", "moto", "paramiko")

PROBE = """
import sys
from deployer.cli.app import run
sys.argv = ["fedspan", *{words!r}]
try:
    code = run()
except SystemExit as end:
    code = end.code
heavy = [name for name in {heavy!r} if name in sys.modules]
print("CODE", code, "HEAVY", heavy, file=sys.stderr)
"""


def fedspan(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "deployer.cli", *words],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def imported(*words: str, cwd: Path, **environment: str) -> str:
    """What of the heavy packages a command line has imported, as the last line of standard error."""
    script = PROBE.format(words=list(words), heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stderr.strip().splitlines()[-1]


SPEC = """\
version: 1
name: digits
server: {target: host, host: 127.0.0.1, user: nobody}
sites: {site-1: {target: kit}}
admins: {ana@hospital-a.example: {role: lead}}
"""


def test_help_takes_less_than_300_ms(tmp_path: Path) -> None:
    """Counted in processor time: on a busy machine the clock would blame us for our neighbours."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert fedspan("--help", cwd=tmp_path).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(times) < 0.3, times


def test_help_and_completion_import_nothing_heavy(tmp_path: Path) -> None:
    assert imported("--help", cwd=tmp_path) == "CODE 0 HEAVY []"
    assert imported("up", "--help", cwd=tmp_path) == "CODE 0 HEAVY []"
    completion = imported(cwd=tmp_path, _FEDSPAN_COMPLETE="complete_bash", COMP_WORDS="fedspan up --", COMP_CWORD="2")
    assert completion.endswith("HEAVY []")


def test_status_imports_no_engine_provider_or_grpc(tmp_path: Path) -> None:
    (tmp_path / "federation.yml").write_text(SPEC)
    assert imported("status", cwd=tmp_path) == "CODE 0 HEAVY []"


def test_completion_offers_the_verbs(tmp_path: Path) -> None:
    done = fedspan(cwd=tmp_path, _FEDSPAN_COMPLETE="complete_bash", COMP_WORDS="fedspan st", COMP_CWORD="1")
    assert "status" in done.stdout


def test_an_unknown_verb_is_a_usage_error_with_the_nearest_one(tmp_path: Path) -> None:
    done = fedspan("statsu", cwd=tmp_path)
    assert done.returncode == 2
    assert "status" in done.stderr


def test_no_spec_is_one_message_and_exit_code_3(tmp_path: Path) -> None:
    done = fedspan("status", cwd=tmp_path)
    assert done.returncode == 3
    assert "there is no federation.yml" in done.stderr
    assert "next: fedspan init" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_is_one_document_with_json(tmp_path: Path) -> None:
    done = fedspan("--json", "status", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["error"] == "SpecError"
    assert document["exit_code"] == done.returncode == 3


def test_every_verb_of_the_table_can_be_loaded(tmp_path: Path) -> None:
    from deployer.cli.app import VERBS, load

    for name, verb in VERBS.items():
        assert load(name, verb).name == name


@pytest.mark.parametrize("verb", ["up", "down", "plan", "status", "allow", "job", "kit", "sandbox"])
def test_every_verb_has_help(verb: str, tmp_path: Path) -> None:
    done = fedspan(verb, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Global options" in done.stdout


@pytest.mark.parametrize("words", [["--ttl", "8h"], ["--passphrase-file", "f"], ["site-1"], ["--allow-fallback"]])
def test_what_only_the_leads_up_understands_is_refused_with_a_kit(words: list[str], tmp_path: Path) -> None:
    done = fedspan("up", "--kit", "site-1", "--cloud", "aws", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert words[0] in done.stderr or "participants" in done.stderr
