"""Every way in which job.yml names code for the server, and that none of it runs where it is not kept apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lone_hub import server

from fl_runtime.errors import JobSpecError
from fl_runtime.hub.own_code import place_of
from fl_runtime.job.spec import parse_spec
from fl_runtime.workflow import process

COMPONENTS = {"a": {"path": "mine.Component"}}


@pytest.mark.parametrize(
    "workflow",
    [
        {"type": "controller"},
        {"type": "Controller"},
        {"type": "Controller", "components": COMPONENTS},
        {"type": "fedavg", "components": COMPONENTS},
        {"type": "CONTROLLER", "path": "", "components": COMPONENTS},
        {"type": "fedavg", "path": ["mine.Mine"]},
        {"path": "mine"},
    ],
)
def test_own_code_is_named_by_its_path_whatever_the_type_looks_like(workflow: dict[str, Any]) -> None:
    with pytest.raises(JobSpecError, match=r"workflow must be \{path: module.Class"):
        parse_spec({"name": "x", "script": "train.py", "workflow": workflow})


def test_a_type_is_one_word_and_its_case_does_not_matter() -> None:
    own = {"type": "Controller", "path": "mine.Mine", "components": COMPONENTS}
    assert parse_spec({"name": "x", "script": "train.py", "workflow": own}).workflow["type"] == "controller"
    assert parse_spec({"name": "x", "script": "train.py", "workflow": "FedAvg"}).workflow["type"] == "fedavg"
    with pytest.raises(JobSpecError, match=r"workflow\.type must be a word"):
        parse_spec({"name": "x", "script": "train.py", "workflow": {"type": ["controller"]}})


@pytest.mark.parametrize("kind", ["controller", "Controller", "fedavg"])
@pytest.mark.parametrize("path", [None, "", "logging.FileHandler"])
def test_a_process_that_is_not_kept_apart_makes_nothing_that_the_job_names(
    tmp_path: Path, kind: str, path: str | None
) -> None:
    """Also of a document as it must never come to the server's store: the process on its own decides alike."""
    mark = tmp_path / "mark"
    handler = {"path": "logging.FileHandler", "args": {"filename": str(mark)}}
    settings: dict[str, Any] = {"type": kind, "components": {"a": handler}}
    if path is not None:
        settings.update(handler, path=path)
    (tmp_path / "server").mkdir()
    with server(tmp_path / "server") as one:
        job = replace(one.job, spec={**one.job.spec, "workflow": settings})
        try:
            apart = place_of(one.hub, job, tmp_path / "job") is not None
        except JobSpecError:
            return  # it is not started at all
        if apart:
            return
    hello = {"job": "job-1", "spec": job.spec, "bundle": str(tmp_path), "round": None, "state": None, "orders": []}
    with pytest.raises(JobSpecError):
        process.make(SimpleNamespace(hello=hello)).run()  # type: ignore[arg-type]
    assert not mark.exists()
