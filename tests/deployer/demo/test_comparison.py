"""The demo's data and comparison are what they say they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deployer.demo import data
from deployer.demo.compare import EPOCHS_A_ROUND, Comparison, compare, load_script
from deployer.demo.plot import bars, save_png, sparkline

SCRIPT = Path(__file__).parents[3] / "examples" / "digits" / "train.py"
SITES = ["site-1", "site-2", "site-3"]


def as_set(rows: data.Rows) -> set[bytes]:
    return {image.tobytes() for image in rows.x}


def test_every_image_is_in_one_part_or_held_out_and_in_no_two() -> None:
    pytest.importorskip("sklearn")
    everything = data.load()
    parts, held_out = data.split(everything, SITES)
    assert sum(map(len, parts.values())) + len(held_out) == len(everything) == 1797
    sets = [as_set(rows) for rows in (*parts.values(), held_out)]
    assert len(set.union(*sets)) == sum(map(len, sets)) == len(as_set(everything))


def test_the_split_is_the_same_for_the_same_seed_and_uneven_for_a_small_alpha() -> None:
    pytest.importorskip("sklearn")
    everything = data.load()
    first, second = (data.split(everything, SITES, alpha=0.3, seed=1)[0] for _ in range(2))
    assert all(np.array_equal(first[site].x, second[site].x) for site in SITES)
    spread = [max(p.per_class()) / max(1, min(p.per_class())) for p in first.values()]
    even = [max(p.per_class()) / min(p.per_class()) for p in data.split(everything, SITES, alpha=1000)[0].values()]
    assert min(spread) > 2 * max(even)


def test_the_comparison_trains_with_the_jobs_own_script_and_the_pooled_model_is_best() -> None:
    pytest.importorskip("sklearn")
    script = load_script(SCRIPT)
    parts, held_out = data.split(data.load(), SITES)
    rounds = 6
    model = script.init()
    for number in range(rounds):
        answers = {s: script.train(model, p.x, p.y, EPOCHS_A_ROUND, seed=number) for s, p in parts.items()}
        total = sum(map(len, parts.values()))
        model = {name: sum(answers[s][name] * (len(parts[s]) / total) for s in SITES) for name in model}
    result = compare(script, parts, held_out, model, rounds)
    assert result.untrained < 0.3 < min(result.alone.values())
    assert result.best_alone < result.federated < 1
    assert result.best_alone < result.pooled
    assert result.won


def test_a_federated_model_that_is_no_better_has_not_won(tmp_path: Path) -> None:
    lost = Comparison(0.1, {"a": 0.8, "b": 0.9}, 0.9, 0.95)
    assert not lost.won
    assert any("90.0%" in line for line in bars(lost))


def test_the_plot_is_a_png_and_the_sparkline_rises(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    shown = Comparison(0.1, {"a": 0.8, "b": 0.85}, 0.9, 0.95)
    save_png(tmp_path / "plot.png", shown, {"a": [0.1, 0.5, 0.9], "b": [0.2, 0.6, 0.8]}, "digits")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert sparkline([0, 0.5, 1]) == "▁▅█"
