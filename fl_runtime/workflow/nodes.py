"""Where a round is aggregated: on the server, or at a site that does it as a task of the runtime's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_runtime.errors import FlError
from fl_runtime.models.check import fault, shapes
from fl_runtime.models.tensors import TensorFile
from fl_runtime.names import AGGREGATE
from fl_runtime.workflow.aggregation import Inputs, combine, pack, unpack
from fl_runtime.workflow.records import Model, Result

if TYPE_CHECKING:
    from fl_runtime.client.session import Work
    from fl_runtime.workflow.base import Workflow

log = logging.getLogger("fedspan.workflow")


# --- on the server


def aggregated(
    workflow: Workflow, plan: Mapping[str, Any], results: Sequence[Result], states: Mapping[str, Model]
) -> dict[str, Model]:
    """The next model and states; by `workflow.aggregate_at` on the server, at a named site, or at another site each
    round (`rotate`: among those whose results count). A site that stays lost, or fails, costs nothing but time: the
    server does it then, with the same bits."""
    if len({result.is_diff for result in results}) != 1:
        raise FlError("Some sites sent weights and others differences: they can't be combined")
    where = str(workflow.settings.get("aggregate_at") or "server")
    if where == "rotate":
        names = sorted(result.site for result in results)
        where = names[workflow.round % len(names)]
    if where != "server":
        made = _at_site(workflow, where, plan, results, states)
        if made is not None:
            return made
    current = workflow.model
    inputs = Inputs(
        [(result.site, result.weight, result.source) for result in results if result.source is not None],
        results[0].is_diff,
        current.source if current is not None else None,
        {key: model.source for key, model in states.items()},
    )
    files, notes = combine(plan, inputs, workflow.new_file)
    workflow.record(**notes)
    return {key: workflow.keep(path) for key, path in files.items()}


def _at_site(
    workflow: Workflow, site: str, plan: Mapping[str, Any], results: Sequence[Result], states: Mapping[str, Model]
) -> dict[str, Model] | None:
    blobs = {f"state.{key}": model for key, model in states.items()}
    for result in results:
        if result.blob is None or result.source is None:
            return None
        blobs[f"result.{result.site}"] = Model(result.blob, result.source)
    if workflow.model is not None:
        blobs["current"] = workflow.model
    about = {
        "plan": dict(plan),
        "results": [[result.site, result.weight] for result in results],
        "diff": results[0].is_diff,
    }
    answer = workflow.send_and_wait(AGGREGATE, None, site, meta=about, tensors=False, blobs=blobs)
    why = "it did not answer" if answer is None else answer.meta.get("error") or _fault(workflow, answer, results)
    if answer is None or why:
        log.warning("%s did not aggregate (%s): the server does it", site, why)
        return None
    workflow.record(aggregated_at=site, **(answer.meta.get("notes") or {}))
    if answer.meta["outputs"] == ["model"]:
        assert answer.source is not None
        assert answer.blob is not None
        return {"model": Model(answer.blob, answer.source)}
    assert answer.source is not None
    return {key: workflow.keep(path) for key, path in unpack(answer.source, workflow.new_file).items()}


def _fault(workflow: Workflow, answer: Result, results: Sequence[Result]) -> str | None:
    """Why what a site made is no model that could follow."""
    if answer.source is None:
        return "it sent no model"
    template = workflow.model.open() if workflow.model is not None else results[0].open()
    prefix = "" if answer.meta.get("outputs") == ["model"] else "model/"
    with answer.open() as file:
        wanted = {prefix + name: entry for name, entry in shapes(template).items()}
        if prefix and not set(wanted) <= set(file.tensors):
            return "its answer lacks tensors"
        return fault(file, None if prefix else wanted)


# --- on a site


def perform(work: Work, new_file: Callable[[int], Path]) -> tuple[dict[str, Any], Path | None]:
    """Do a task of the runtime's own, in the job's process: the answer's plain part, and its file."""
    about = work.meta["meta"]
    inputs = Inputs(
        [(site, float(weight), work.blobs[f"result.{site}"]) for site, weight in about["results"]],
        bool(about["diff"]),
        work.blobs.get("current"),
        {key[len("state.") :]: source for key, source in work.blobs.items() if key.startswith("state.")},
    )
    meta: dict[str, Any] = {"params_type": None, "metrics": None, "meta": {}}
    try:
        if work.name != AGGREGATE:
            raise FlError(f"this runtime does not know the task {work.name}")
        files, notes = combine(about["plan"], inputs, new_file)
        path = pack(files, new_file)
        with TensorFile(path):
            pass
    except (FlError, OSError, KeyError) as error:
        return {**meta, "error": f"{type(error).__name__}: {error}"}, None
    return {**meta, "outputs": list(files), "notes": notes}, path
