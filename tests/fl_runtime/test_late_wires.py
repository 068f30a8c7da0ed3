"""Filters and codecs of results that come when their round is over, or make no sense."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import until
from lone_hub import JOB, SIZE, Server, acks, model, owned, pushed, server, wire_of

from fl_runtime.blobs import of_bytes
from fl_runtime.codecs.decode import decode
from fl_runtime.hub.sessions import Session
from fl_runtime.hub.state import REFUSED
from fl_runtime.models.meta import parse_meta
from fl_runtime.models.tensors import TensorFile
from fl_runtime.proto import fedspan_pb2 as pb


def test_an_encoded_result_that_comes_late_stands_in_decoded(tmp_path: Path) -> None:
    codecs = [{"type": "quantize8", "on": "results"}]
    with server(tmp_path, codecs=codecs, workflow={"late": "use"}) as made:
        made.open(made.call(np.zeros(SIZE), min=1))
        made.hub.board.cancel((JOB, 0, 0), "enough")
        values = np.linspace(0, 1, SIZE)
        wire, form = wire_of(codecs, tmp_path, model(values))
        made.answer(f"{JOB}/0.0/site-1", wire, form=form, meta={"params_type": "FULL", "wire": {"plain": "00"}})
        made.open(made.call(np.ones(SIZE), round_=1, min=1, deadline=0))
        late = until(lambda: [task for task in made.heard.results if task.meta.get("late_round") == 0])[0]
        blob, meta = made.hub.wires.plain(made.job, late)
        assert "wire" not in meta
        assert np.allclose(made.values(blob), values, atol=0.01)


DELTA = {"codecs": ["delta", "quantize8"], "workflow": {"late": "use"}}


def trained(made: Server, task: pb.Task, tmp: Path) -> tuple[bytes, str]:
    """What a site sends that has added 0.5 to what it got: a difference to that, and its form."""
    decode(made.hub.blobs.read(task.payload.blob), tmp / "base", 1 << 30)
    values = TensorFile(tmp / "base").array("w") + 0.5
    return wire_of(DELTA["codecs"], tmp, model(values), base=tmp / "base", base_id=task.payload.plain.hex())


@contextlib.contextmanager
def round_over(tmp: Path) -> Iterator[tuple[Server, Session, pb.Task, bytes, str]]:
    """A server whose first round was committed without its site's result, which is a difference: it, and its form."""
    with server(tmp, **DELTA) as made:
        session = made.connect()
        made.open(made.call(np.linspace(-1, 1, SIZE), min=1))
        (task,) = pushed(session)
        wire, form = trained(made, task, tmp)
        made.hub.board.cancel((JOB, 0, 0), "enough")
        made.commit(0)
        yield made, session, task, wire, form


@pytest.mark.parametrize("later", [0, 1, 3])
def test_a_difference_that_comes_late_stands_in_decoded(tmp_path: Path, later: int) -> None:
    """The model that it refers to is kept: for it, then with it, whatever the rounds after its own release."""
    with round_over(tmp_path) as (made, _, task, wire, form):
        for number in range(1, 1 + later):  # rounds that it misses, too
            made.open(made.call(np.zeros(SIZE), round_=number, min=0))
            made.hub.board.cancel((JOB, number, 0), "enough")
            made.commit(number)
        made.restart()
        made.answer(task.task, wire, form=form, base=task.payload.plain)
        made.commit(1 + later)
        made.open(made.call(np.ones(SIZE), round_=2 + later, min=1, deadline=0))
        (late,) = until(lambda: made.heard.results)
        blob, _ = made.hub.wires.plain(made.job, late)
        assert np.allclose(made.values(blob), np.linspace(-0.5, 1.5, SIZE), atol=0.02)
        made.hub.board.judge(late.id, True, "")
        made.commit(2 + later)
        # of the rounds that it missed meanwhile: it may be at one of them
        assert f"job:job-1:late:site-1:sent:{2 + later}.0" in made.owners()
        made.connect()
        made.open(made.call(np.ones(SIZE), round_=3 + later))
        made.answer(f"{JOB}/{3 + later}.0/site-1", model(np.ones(SIZE)))
        made.hub.board.judge(f"{JOB}/{3 + later}.0/site-1", True, "")
        made.commit(3 + later)
        made.commit(4 + later)
        assert made.owners() == owned("bundle")


def test_a_difference_that_was_made_while_the_one_before_was_on_its_way_is_decoded_too(tmp_path: Path) -> None:
    """A slow link: the script has taken the second task and answered it before the first answer was here."""
    with round_over(tmp_path) as (made, session, first, wire, form):
        made.open(made.call(np.zeros(SIZE), round_=1, min=1))
        (second,) = pushed(session)
        more, its_form = trained(made, second, tmp_path)
        for number in (1, 2, 3):
            if number > 1:
                made.open(made.call(np.zeros(SIZE), round_=number, min=1))
            made.hub.board.cancel((JOB, number, 0), "enough")
            made.commit(number)
            if number == 1:
                made.answer(first.task, wire, form=form, base=first.payload.plain)
        made.answer(second.task, more, form=its_form, base=second.payload.plain)
        made.open(made.call(np.ones(SIZE), round_=4, min=1, deadline=0))
        (late,) = until(lambda: made.heard.results)
        assert late.meta["late_round"] == 1
        blob, _ = made.hub.wires.plain(made.job, late)
        assert np.allclose(made.values(blob), 0.5, atol=0.02)
        assert sum(":late:site-1:sent:" in owner for owner in made.owners()) <= 2


def test_a_late_difference_to_a_model_that_was_not_sent_is_refused(tmp_path: Path) -> None:
    with round_over(tmp_path) as (made, session, task, wire, form):
        made.commit(1)
        made.answer(task.task, wire, form=form, base=bytes(32))
        assert [(ack.accepted, ack.why) for ack in acks(session)] == [
            (False, "The result came late, and the model that it refers to is gone")
        ]
        assert made.hub.store.late(JOB, "site-1") is None


def test_a_late_result_whose_content_went_with_its_round_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    with server(tmp_path, workflow={"late": "use"}) as made:
        session = made.connect()
        made.open(made.call(np.zeros(SIZE), min=1))
        made.hub.board.cancel((JOB, 0, 0), "enough")
        data = model(np.ones(SIZE))
        result = pb.TaskResult(
            job=JOB, task=f"{JOB}/0.0/site-1", meta=b"{}", payload=pb.Payload(blob=of_bytes(data).id, length=len(data))
        )
        acks(session)
        made.hub.board.answers.take("site-1", result)
        assert [(ack.accepted, ack.why) for ack in acks(session)] == [
            (False, "its content went when its round was over")
        ]


def test_an_answer_that_makes_no_sense_is_refused_and_the_job_does_not_wait_for_it(tmp_path: Path) -> None:
    with server(tmp_path, codecs=["quantize8"]) as made:
        made.open(made.call(np.ones(SIZE)))
        name = f"{JOB}/0.0/site-1"
        blob = made.hub.blobs.put(model(np.ones(SIZE)), f"job:{JOB}:task:{name}")
        made.hub.store.answer(name, {"wire": {"plain": "00"}}, blob)
        link = made.link()
        link.result(made.hub.store.task(name))
        until(lambda: made.hub.store.task(name).state == REFUSED)


@pytest.mark.parametrize("late", ["use", "drop"])
@pytest.mark.parametrize("inline", [True, False])
def test_a_result_whose_round_closes_while_it_is_looked_at_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str, inline: bool
) -> None:
    with server(tmp_path, workflow={"late": late}) as made:
        made.open(made.call(np.zeros(SIZE), min=1))
        data, task = model(np.ones(SIZE)), f"{JOB}/0.0/site-1"

        def read(text: bytes) -> dict[str, Any]:
            made.hub.board.cancel((JOB, 0, 0), "enough")
            return parse_meta(text)

        with monkeypatch.context() as now:
            now.setattr("fl_runtime.hub.answers.parse_meta", read)
            if inline:
                content = pb.Payload(blob=of_bytes(data).id, length=len(data), inline=data)
                made.hub.board.answers.take("site-1", pb.TaskResult(job=JOB, task=task, meta=b"{}", payload=content))
            else:
                made.answer(task, data)
        assert (made.hub.store.late(JOB, "site-1") is not None) == (late == "use")
        made.open(made.call(np.ones(SIZE), round_=1, min=1, deadline=0))
        assert [task.meta.get("late_round") for task in made.heard.results] == ([0] if late == "use" else [])
        assert made.left_over() == []
