"""The plot beside a downloaded job's metrics: drawn where matplotlib is, and where there is none it is said why."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from fl_runtime.admin.plot import NAME, curves, draw, why_none


def written(folder: Path, **more: Any) -> Path:
    sites = {"a": {"weight": 1, "acc": 0.1}, "b": {"weight": 3, "acc": 0.5}}
    view = {
        "id": "job-1",
        "state": "FINISHED",
        "spec": {"tracking": {}},
        "history": [{"round": number, "metrics": {"acc": 0.4}, "sites": sites} for number in range(3)],
        "metrics": [
            {"site": "a", "key": "loss", "value": 2.0, "step": 5},
            {"site": "a", "key": "loss", "value": float("nan"), "step": 6},
            {"site": "b", "key": "loss", "value": 1.0, "step": None},
        ],
        **more,
    }
    (folder / "metrics.json").write_text(json.dumps(view))
    return folder


def test_metrics_go_by_round_and_what_was_streamed_by_step(tmp_path: Path) -> None:
    found = curves(json.loads((written(tmp_path) / "metrics.json").read_text()))
    assert found["acc"] == {
        "": [(0, 0.4), (1, 0.4), (2, 0.4)],
        "a": [(0, 0.1), (1, 0.1), (2, 0.1)],
        "b": [(0, 0.5), (1, 0.5), (2, 0.5)],
    }
    assert found["log: loss"] == {"a": [(5, 2.0)], "b": [(0, 1.0)]}  # NaN can't be drawn


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert draw(written(tmp_path))
    assert (tmp_path / NAME).read_bytes().startswith(b"\x89PNG")


def test_where_there_is_none_it_is_said_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_none(written(tmp_path, history=[], metrics=[])) == "the sites sent no metrics"
    assert "plot: false" in str(why_none(written(tmp_path, spec={"tracking": {"plot": False}})))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'fedspan[plot]'" in str(why_none(written(tmp_path)))
    assert not draw(tmp_path)
    assert not (tmp_path / NAME).exists()
