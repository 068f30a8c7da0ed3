"""`fedspan job`: mistakes of the command line are usage errors that say what to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.cli import jobs
from deployer.errors import UsageError
from fl_runtime.errors import JobError


def test_an_unknown_job_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="there is no job j1") as caught, jobs.about():
        raise JobError("there is no job j1", next_step="fedspan job list")
    assert caught.value.exit_code == 2
    assert caught.value.next_step == "fedspan job list"


def test_a_folder_without_a_job_is_refused_before_the_server_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has no job") as caught:
        jobs.submit(tmp_path / "nowhere")
    assert caught.value.next_step


def test_a_round_is_told_whatever_its_metrics_are_called() -> None:
    told = jobs.event_in_words({"event": "round", "round": 3, "metrics": {"mean": 0.25, "loss": 1.5}})
    assert told == "round 3 mean 0.25 loss 1.5"
