"""How blobs are shared out over connections: from the round-trip time and the size, unless told otherwise."""

from __future__ import annotations

import pytest

from fl_runtime.agent.transfer import CONNECTIONS, connections, split


@pytest.mark.parametrize(
    ("rtt", "leaves", "wanted"),
    [(0.0005, 10_000, 1), (0.03, 10_000, 1), (0.05, 10_000, 2), (0.2, 10_000, 4), (0.2, 8, 2), (0.2, 3, 1)],
)
def test_connections_come_with_the_length_of_the_way_and_the_size(rtt: float, leaves: int, wanted: int) -> None:
    assert connections(rtt, leaves) == wanted


def test_the_setting_decides_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONNECTIONS, "3")
    assert connections(0.0, 100) == 3
    assert connections(9.0, 2) == 2
    monkeypatch.setenv(CONNECTIONS, "99")
    assert connections(0.0, 100) == 8


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("missing", [[(0, 1)], [(0, 100)], [(3, 5), (20, 77), (200, 1)]])
def test_pieces_are_the_missing_leaves_each_once(missing: list[tuple[int, int]], count: int) -> None:
    pieces = split(missing, count)
    cut = [leaf for first, length in pieces for leaf in range(first, first + length)]
    assert cut == [leaf for first, length in missing for leaf in range(first, first + length)]
