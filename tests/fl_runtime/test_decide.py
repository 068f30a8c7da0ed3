"""When a round is over: the quorum."""

from __future__ import annotations

import pytest

from fl_runtime.hub.quorum import Part, decide


def part(state: str, lost: float | None = None, site: str = "s") -> Part:
    return Part(site, state, lost)


@pytest.mark.parametrize(
    ("parts", "minimum", "waited", "verdict"),
    [
        ([part("accepted"), part("accepted")], 2, 0, "close"),
        ([part("accepted"), part("open")], 1, 0, "open"),  # connected: it is waited for
        ([part("accepted"), part("open", 4.9)], 1, 0, "open"),  # not lost long enough
        ([part("accepted"), part("open", 5.0)], 1, 0, "close"),
        ([part("accepted"), part("open", 99)], 2, 0, "open"),  # below the minimum: it may come back
        ([part("accepted"), part("open", 99), part("open")], 1, 0, "open"),
        ([part("accepted"), part("answered"), part("open", 99)], 1, 0, "open"),  # a result is being looked at
        ([part("accepted"), part("open")], 1, 60, "close"),  # the deadline
        ([part("accepted"), part("open")], 2, 60, "fail"),
        ([part("accepted"), part("refused")], 2, 0, "fail"),
        ([part("accepted"), part("failed"), part("open")], 3, 0, "fail"),  # can't be met any more
        ([part("refused"), part("failed")], 1, 0, "fail"),
    ],
)
def test_when_a_round_is_over(parts: list[Part], minimum: int, waited: float, verdict: str) -> None:
    assert decide(parts, minimum, waited, 60.0, 5.0).verdict == verdict


@pytest.mark.parametrize(
    ("parts", "minimum", "waited", "below", "verdict"),
    [
        ([part("accepted"), part("open")], 2, 60, "wait", "open"),  # the deadline is over; it waits on
        ([part("accepted"), part("open", 99)], 2, 60, "wait", "open"),
        ([part("accepted"), part("open", 4)], 2, 0, "fail", "open"),  # it may come back within its grace
        ([part("accepted"), part("open", 5)], 2, 0, "fail", "fail"),
        ([part("accepted"), part("open", 5)], 1, 0, "fail", "close"),
        ([part("accepted"), part("open"), part("open", 5)], 2, 0, "fail", "open"),  # the other one may do
        ([part("accepted"), part("open")], 2, 60, "fail", "fail"),
    ],
)
def test_below_its_quorum_a_job_waits_or_fails_as_it_says(
    parts: list[Part], minimum: int, waited: float, below: str, verdict: str
) -> None:
    assert decide(parts, minimum, waited, 60.0, 5.0, below).verdict == verdict


def test_the_deadline_of_a_queued_site_does_not_run() -> None:
    queued = Part("a", "open", queued=20.0)
    assert decide([part("accepted"), queued], 1, 79, 60.0, 5.0).verdict == "open"
    assert decide([part("accepted"), queued], 1, 80, 60.0, 5.0).verdict == "close"


def test_a_late_result_stands_in_only_when_the_round_would_close_without_the_site() -> None:
    late = Part("a", "open", late=True)
    assert decide([part("accepted"), late], 2, 0, 60.0, 5.0).verdict == "open"
    assert decide([part("accepted"), late], 2, 60, 60.0, 5.0).verdict == "use-late"
    assert decide([part("accepted"), Part("a", "open", 6.0, late=True)], 2, 0, None, 5.0).verdict == "use-late"
    assert decide([part("accepted"), part("answered")], 2, 60, 60.0, 5.0).verdict == "open"  # it is being judged


def test_a_failed_quorum_names_each_site_and_its_reason() -> None:
    parts = [part("accepted", site="a"), Part("b", "refused", why="holds NaN"), Part("c", "failed")]
    assert decide(parts, 2, 0, None, 5).why == "1 of 2 needed results; b: holds NaN; c: failed"
