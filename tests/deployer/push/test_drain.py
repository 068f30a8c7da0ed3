"""Before machines are interrupted somebody must have said that no job runs there: the server, or the site itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deployer.crew import Crew
from deployer.down import Down
from deployer.drain import settle_jobs
from deployer.errors import RefusedError
from deployer.interrupts import Interrupts
from deployer.ledger import Ledger
from deployer.service import STATE, VENV
from tests.deployer.push.conftest import Box, MakeMachine


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crew:
    """Of a federation with a ledger and nothing else."""
    monkeypatch.setenv("FEDSPAN_JOBS_DEADLINE", "1")
    deployment = SimpleNamespace(ledger=Ledger(tmp_path / "ledger.db"), state_dir=tmp_path)
    return cast(Crew, SimpleNamespace(deployment=deployment, interrupts=Interrupts()))


def deployed(crew: Crew, name: str, box: Box | None, phase: str = "registered") -> None:
    """Into the ledger; without a box at an address where nobody answers."""
    role, port, user = ("server" if name == "server" else "site"), (box.port if box else 1), "fedspan"
    crew.deployment.ledger.record(
        name, phase, role=role, target="host", address="127.0.0.1", ssh_port=port, ssh_user=user
    )


def runs(box: Box, says: dict[str, Any]) -> None:
    """A runtime that says this of itself, where a real one would be asked."""
    python = box.root / VENV.lstrip("/") / "bin" / "python"
    python.parent.mkdir(parents=True)
    (box.root / STATE.lstrip("/")).mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho '{json.dumps(says)}'\n")
    python.chmod(0o755)


def settle(crew: Crew, jobs: Any, *names: str) -> None:
    settle_jobs(crew, [row for row in crew.deployment.ledger.participants() if row.name in names], jobs, "upgrade")


def test_a_server_that_does_not_answer_has_not_said_that_no_job_runs(crew: Crew) -> None:
    deployed(crew, "server", None)
    for jobs in ("refuse", "drain"):
        with pytest.raises(RefusedError, match="server: nobody says whether a job runs there") as told:
            settle(crew, jobs, "server")
        assert "fedspan upgrade --resume goes ahead" in (told.value.next_step or "")
    settle(crew, "resume", "server")


def test_a_machine_that_is_off_interrupts_no_job(crew: Crew) -> None:
    deployed(crew, "server", None, phase="stopped")
    settle(crew, "refuse", "server")


def test_where_the_server_is_silent_a_site_is_asked_itself(crew: Crew, make_machine: MakeMachine) -> None:
    deployed(crew, "server", None, phase="stopped")
    deployed(crew, "site-1", None)
    with pytest.raises(RefusedError, match="site-1: nobody says"):
        settle(crew, "refuse", "site-1")
    busy, idle = make_machine("busy"), make_machine("idle")
    runs(busy, {"running": True, "jobs": ["digits-1"]})
    runs(idle, {"running": True, "jobs": []})
    deployed(crew, "site-1", busy)
    with pytest.raises(RefusedError, match="site-1: a job runs there: digits-1"):
        settle(crew, "refuse", "site-1")
    deployed(crew, "site-1", idle)
    settle(crew, "refuse", "site-1")


def down(crew: Crew, folder: Path) -> list[str]:
    """What `down` tells before it asks, where nobody wanted jobs to be aborted or results to be left."""
    told: list[str] = []
    work = Down(crew, crew.deployment.ledger.participants(), folder / "kits", folder / "results")
    work.jobs(abort=False, discard=False, told=told.append)
    return told


def test_down_waits_longer_for_a_servers_word_than_status_does(
    crew: Crew, make_machine: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSPAN_STATUS_DEADLINE", "0.1")
    monkeypatch.setenv("FEDSPAN_JOBS_DEADLINE", "60")
    box = make_machine("slow", auth_fails=2)
    runs(box, {"running": True, "jobs": [{"id": "digits-1", "state": "RUNNING"}]})
    deployed(crew, "server", box)
    with pytest.raises(RefusedError, match="a job is running: digits-1"):
        down(crew, tmp_path)


@pytest.mark.parametrize(
    ("phase", "word"),
    [("stopped", "fedspan start server"), ("failed", "does not answer"), ("registered", "does not answer")],
)
def test_down_tells_of_results_that_can_not_be_fetched(crew: Crew, tmp_path: Path, phase: str, word: str) -> None:
    deployed(crew, "server", None, phase=phase)
    (told,) = down(crew, tmp_path)
    assert "no results can be fetched" in told
    assert word in told
