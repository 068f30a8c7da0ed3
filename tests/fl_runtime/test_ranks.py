"""Whose turn it is among the ranks of one script: at the agent, and in each rank's session."""

from __future__ import annotations

import os
import time

import pytest

from fl_runtime.agent.journal import TaskRow
from fl_runtime.agent.ranks import ALONE_S, Current, Turns
from fl_runtime.client.model import FLModel
from fl_runtime.client.session import Session


def test_a_rank_0_that_uses_the_client_api_alone_is_not_left_waiting() -> None:
    def current(answered: float | None, *through: int) -> Current:
        done_at = None if answered is None else time.monotonic() - answered
        return Current(TaskRow("t", "j", 1, "train", {}, None, 0, "ready"), done_at, set(through))

    assert current(0.0).is_over(world=1, others=False)
    assert not current(None, 1, 2).is_over(world=3, others=True)  # not answered
    assert not current(ALONE_S, 1).is_over(world=3, others=True)
    assert current(0.0, 1, 2).is_over(world=3, others=True)
    assert not current(ALONE_S / 2).is_over(world=3, others=False)
    assert current(ALONE_S).is_over(world=3, others=False)


class Tasks:
    """An agent's side of the wire: three tasks, then the job is over."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def attach(self, _: object) -> dict[str, object]:
        return {}

    def request(self, message: dict[str, object], _: bytes) -> tuple[dict[str, object], bytes]:
        after = message["after"]
        self.asked.append(after)
        number = 0 if after is None else int(after) + 1
        task = {"id": str(number), "attempt": 1, "name": "train", "meta": {"current_round": number}}
        return {"task": task if number < 3 else None}, b""

    def report(self, _: object) -> None: ...
    def close(self) -> None: ...


def test_a_rank_beside_0_that_asks_again_is_through_with_its_task_whatever_it_did_with_it() -> None:
    wire = Tasks()
    other = Session(wire, rank=1, world=2)
    assert other.running()  # and that is all: rank 0 broadcasts the model
    assert other.running()
    assert wire.asked == [None, "0"]
    model = other.receive()
    assert model is not None
    assert model.current_round == 1
    assert other.task_name == "train"
    assert other.running()
    assert wire.asked == [None, "0", "1"]
    other.send(FLModel(metrics={"x": 1.0}))
    assert not other.running()
    assert wire.asked == [None, "0", "1", "2"]


def test_rank_0_and_who_has_heard_of_a_task_elsewhere_are_told_of_it_until_they_are_through() -> None:
    first, other = Session(Tasks(), rank=0, world=2), Session(Tasks(), rank=1, world=2)
    assert first.running()
    assert first.running()
    assert other.task_name == "train"
    assert other.running()  # the task whose name it has asked for
    for session in (first, other):
        model = session.receive()
        assert model is not None
        assert model.current_round == 0


def test_a_rank_that_is_attached_and_asks_for_no_task_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_runtime.agent.ranks.ALONE_S", 0.0)
    monkeypatch.setattr(Turns, "_hide", lambda *_: None)
    turns = Turns("job")
    turns.world = 2
    for rank in (0, 1):
        assert turns.enter(rank, os.getpid()) is None
    for name in ("a", "b", "c"):
        turns.deliver(TaskRow(name, "job", 1, "train", {}, None, 0, "ready"))
    assert turns.next_task(0, 0, None, 0).id == "a"
    turns.answered("a")
    assert turns.next_task(0, 0, "a", 0).id == "b"
    assert turns.next_task(1, 0, None, 0).id == "b"
    turns.answered("b")
    with pytest.raises(TimeoutError):  # now it is
        turns.next_task(0, 0, "b", 0)
    with pytest.raises(TimeoutError):
        turns.next_task(1, 0, "b", 0)
    assert turns.next_task(0, 0, "b", 0).id == "c"
