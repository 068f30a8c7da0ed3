"""Tasks of the runtime's own are done in the script's process: no job gets round a site's filters by them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from federation import TestCA
from lone_hub import JOB, SIZE, model, server

from fl_runtime.agent.journal import DONE, READY, TaskRow
from fl_runtime.agent.main import Agent
from fl_runtime.hub.state import FAILED
from fl_runtime.job.spec import parse_spec
from fl_runtime.kit import read_kit
from fl_runtime.names import AGGREGATE
from fl_runtime.proto import fedspan_pb2 as pb

NAMES = f"{JOB}/0.0/site-1"
CLIPS = {"filters": {"results": [{"type": "clip_value", "limit": 0.5}]}}


@contextlib.contextmanager
def agent(root: Path, **policy: object) -> Iterator[Agent]:
    """A site's agent with one job, without a link."""
    kit = read_kit(TestCA().kit(root / "kit", "site-1", "site", port=1))
    owner_says(kit.path, **policy)
    (root / "state/jobs").mkdir(parents=True)
    made = Agent(kit, root / "state", {})
    spec = parse_spec({"name": "x", "script": "train.py"})
    made.journal.add_job(JOB, b"", b"", spec.document(), "accepted", "")
    try:
        yield made
    finally:
        for part in (made._jobs_worker, made._down, made.results):
            part.stop()
        made.shaping.close()
        made.journal.close()


def owner_says(kit: Path, **policy: object) -> None:
    (kit / "local/policy.yml").write_text(yaml.safe_dump(policy))


def pushed(made: Agent, name: str) -> TaskRow:
    made._task(pb.Task(job=JOB, task=NAMES, attempt=1, name=name, meta=b"{}"))
    found = made.journal.task(NAMES)
    assert found is not None
    return found


def test_a_site_with_filters_for_results_does_no_task_of_the_runtimes_own(tmp_path: Path) -> None:
    with agent(tmp_path, **CLIPS) as made:
        task = pushed(made, AGGREGATE)
        assert (task.state, task.result) == (DONE, None)
        assert "has filters for results" in task.error
        assert made.shaping.outgoing(task).error == task.error


def test_without_such_filters_it_does_it_and_other_tasks_are_the_scripts(tmp_path: Path) -> None:
    for name, policy in ((AGGREGATE, {}), ("train", CLIPS)):
        with agent(tmp_path / name, **policy) as made:
            assert pushed(made, name).state == READY


def test_a_name_that_only_looks_like_the_runtimes_own_reaches_no_script(tmp_path: Path) -> None:
    with agent(tmp_path) as made:
        assert pushed(made, "fedspan.x").error == "its runtime knows no task fedspan.x"


@pytest.mark.parametrize("policy", [CLIPS, {"filters": {"results": [{"type": "no such filter"}]}}])
def test_what_a_script_answered_before_its_owner_named_filters_stays_here(
    tmp_path: Path, policy: dict[str, object]
) -> None:
    """A policy that can't be read may hold filters, too."""
    with agent(tmp_path) as made:
        task = pushed(made, AGGREGATE)
        raw = made.journal.blobs.put(model(np.ones(SIZE)), f"job:{JOB}:task:{NAMES}:result")
        made.journal.done(task.id, raw, {"notes": {"secret": 1}})
        answered = made.journal.task(NAMES)
        assert answered is not None
        assert made.shaping.outgoing(answered).blob == raw
        owner_says(made.kit.path, **policy)
        out = made.shaping.outgoing(answered)
        assert (out.blob, out.answer) == (None, {})
        assert "has filters for results" in out.error


def test_a_jobs_code_on_the_server_can_not_name_its_task_like_the_runtimes_own(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        link = made.link()
        call = {"round": 0, "index": 0, "targets": None, "meta": {}, "settings": {}}
        link._handle(link._do_call, {**call, "name": "fedspan.x"}, b"")
        assert made.job.state == FAILED
        assert "names that begin with fedspan. are the runtime's own" in made.job.cause
        assert made.hub.store.call(JOB, 0, 0) is None
