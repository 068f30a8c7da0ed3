"""Each algorithm against its own reference in float64, on a real federation that trains a regression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from federation import Federation
from safetensors.numpy import load_file
from scripts import REGRESSION

from fl_runtime.errors import JobError
from fl_runtime.simulator import simulate

ROUNDS, RATE = 4, 0.1
Table = tuple[np.ndarray, np.ndarray]
W = {"tensors": {"w": [5]}, "init": "normal", "seed": 1}


@pytest.fixture(scope="module")
def tables(running: Federation) -> dict[str, Table]:
    rng, made = np.random.default_rng(5), {}
    for number, site in enumerate(running.sites):
        truth = rng.normal(size=5)  # every site's own: they disagree
        x = rng.normal(size=(20 + 10 * number, 5))
        made[site] = (x, x @ truth)
        np.savez(running.root / f"{site}.npz", x=x, y=x @ truth)
        running.data(site, table=running.root / f"{site}.npz")
    return made


def run(fed: Federation, script: str = REGRESSION, **workflow: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    name = str(workflow.get("type"))
    settings = {"rounds": ROUNDS, "model": W, **workflow}
    folder = fed.job(name.replace("_", "-"), script, data=["table"], config={"rate": RATE}, workflow=settings)
    with fed.session() as session:
        job = session.submit(folder)
        view = session.wait(job, 120)
        target = session.download(job, fed.root / "results")
    models = {path.stem: load_file(path)["w"] for path in target.glob("*.safetensors")}
    return models, view


def first_model() -> np.ndarray:
    return np.random.default_rng(1).normal(0.0, 0.1, 5).astype(np.float32)


def local(table: Table, w: np.ndarray) -> np.ndarray:
    """What the script does."""
    x, y = table
    w = w.astype(np.float64)
    for _ in range(3):
        w -= RATE * x.T @ (x @ w - y) / len(x)
    return w.astype(np.float32)


def loss(table: Table, w: np.ndarray) -> float:
    x, y = table
    return float(((x @ w.astype(np.float64) - y) ** 2).mean())


def reference(
    tables: dict[str, Table], combine: Callable[[np.ndarray, list[np.ndarray], np.ndarray], np.ndarray]
) -> np.ndarray:
    w, weights = first_model(), np.array([len(table[0]) for table in tables.values()], float)
    for _ in range(ROUNDS):
        results = [local(table, w).astype(np.float64) for table in tables.values()]
        w = combine(w.astype(np.float64), results, weights).astype(np.float32)
    return w


def mean(results: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    return np.average(results, axis=0, weights=weights)


def test_fedavg(running: Federation, tables: dict[str, Table]) -> None:
    got, _ = run(running, type="fedavg")
    assert got["model"] == pytest.approx(reference(tables, lambda w, rs, n: mean(rs, n)), abs=2e-7)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("kind", ["adam", *(pytest.param(kind, marks=SLOW) for kind in ("sgd", "yogi", "adagrad"))])
def test_fedopt(running: Federation, tables: dict[str, Table], kind: str) -> None:
    lr, tau, m, v = 0.3, 1e-3, np.zeros(5), np.full(5, 1e-6)
    beta1 = 0.0 if kind == "adagrad" else 0.9

    def step(w: np.ndarray, results: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
        nonlocal m, v
        gap = mean(results, weights) - w
        if kind == "sgd":
            m = 0.9 * m + gap
            return w + lr * m
        m = beta1 * m + (1 - beta1) * gap
        square = gap * gap
        if kind == "adam":
            v = 0.99 * v + 0.01 * square
        elif kind == "yogi":
            v = v - 0.01 * square * np.sign(v - square)
        else:
            v = v + square
        return w + lr * m / (np.sqrt(v) + tau)

    got, _ = run(running, type="fedopt", optimizer={"type": kind, "lr": lr})
    assert got["model"] == pytest.approx(reference(tables, step), rel=2e-5, abs=2e-6)


@SLOW
def test_fedavgm_is_fedopt_with_momentum(running: Federation, tables: dict[str, Table]) -> None:
    one, _ = run(running, type="fedavgm", optimizer={"lr": 0.5, "momentum": 0.5})
    other, _ = run(running, type="fedopt", optimizer={"type": "sgd", "lr": 0.5, "momentum": 0.5})
    assert np.array_equal(one["model"], other["model"])


@SLOW
def test_median_and_trimmed_mean(running: Federation, tables: dict[str, Table]) -> None:
    want = reference(tables, lambda w, rs, n: np.median(rs, axis=0))
    for aggregator in ("median", {"type": "trimmed_mean", "trim": 0.34}):
        got, _ = run(running, type="fedavg", aggregator=aggregator)
        assert got["model"] == pytest.approx(want, abs=2e-7)


@SLOW
def test_fedprox_tells_the_sites_mu(running: Federation, tables: dict[str, Table]) -> None:
    script = REGRESSION.replace(
        "w -= rate * x.T @ (x @ w - y) / len(x)",
        "w -= rate * (x.T @ (x @ w - y) / len(x) + model.meta['FEDPROX_MU'] * (w - model.params['w']))",
    )

    def prox(table: Table, start: np.ndarray) -> np.ndarray:
        x, y = table
        w = start.astype(np.float64)
        for _ in range(3):
            w -= RATE * (x.T @ (x @ w - y) / len(x) + 0.5 * (w - start))
        return w.astype(np.float32)

    w, weights = first_model(), [len(table[0]) for table in tables.values()]
    for _ in range(ROUNDS):
        w = np.average(
            [prox(table, w).astype(np.float64) for table in tables.values()], axis=0, weights=weights
        ).astype(np.float32)
    got, _ = run(running, script, type="fedprox", mu=0.5)
    assert got["model"] == pytest.approx(w, abs=2e-7)


@pytest.mark.parametrize("aggregator", ["median", {"type": "trimmed_mean", "trim": 0.2}, {"type": "krum", "keep": 2}])
def test_robust_aggregation_of_seven_sites_one_of_which_lies(tmp_path: Path, aggregator: Any) -> None:
    """In the simulator, whose server is the real one."""
    rng, tables = np.random.default_rng(8), {}
    for number in range(1, 8):
        x = rng.normal(size=(12, 5))
        tables[f"site-{number}"] = (x, x @ (np.ones(5) + 0.1 * rng.normal(size=5)) + (1e3 if number == 4 else 0.0))
        np.savez(tmp_path / f"site-{number}.npz", x=x, y=tables[f"site-{number}"][1])

    def combine(w: np.ndarray, results: list[np.ndarray], _: np.ndarray) -> np.ndarray:
        stack = np.stack(results)
        if aggregator == "median":
            return np.median(stack, axis=0)
        if aggregator["type"] == "trimmed_mean":
            return np.sort(stack, axis=0)[1:-1].mean(axis=0)
        gaps = ((stack[:, None] - stack[None]) ** 2).sum(axis=2)  # Krum: the 2 with the nearest 7 - 1 - 2 neighbours
        scores = np.sort(gaps, axis=1)[:, 1:5].sum(axis=1)
        return stack[np.argsort(scores)[:2]].mean(axis=0)

    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "train.py").write_text(REGRESSION)
    workflow = {"type": "fedavg", "rounds": ROUNDS, "model": W, "aggregator": aggregator}
    document = {"name": "robust", "script": "train.py", "data": ["table"], "config": {"rate": RATE}}
    (folder / "job.yml").write_text(yaml.safe_dump({**document, "workflow": workflow}))
    done = simulate(folder, sites=7, workers=2, data={"table": f"{tmp_path}/{{site}}.npz"}, to=tmp_path / "to")
    got = load_file(done.folder / "model.safetensors")["w"]
    assert got == pytest.approx(reference(tables, combine), rel=1e-5, abs=1e-5)
    assert np.abs(got).max() < 3


SCAFFOLD = """
import numpy as np
import fl_runtime.client as flare
flare.init()
with np.load(flare.get_data("table")) as table:
    x, y = table["x"], table["y"]
rate, own = flare.get_config()["rate"], np.zeros(5)
while flare.is_running():
    model = flare.receive()
    start = model.params["w"].astype(np.float64)
    control = (model.optimizer_params or {}).get("c.w", np.zeros(5)).astype(np.float64)
    w = start.copy()
    for _ in range(3):
        w -= rate * (x.T @ (x @ w - y) / len(x) - own + control)
    new = own - control + (start - w) / (3 * rate)
    delta, own = new - own, new
    change = {"c_delta.w": delta.astype(np.float32)}
    flare.send(flare.FLModel(params={"w": w.astype(np.float32)}, optimizer_params=change))
"""


def test_scaffold(running: Federation, tables: dict[str, Table]) -> None:
    x0, c, own = first_model().astype(np.float64), np.zeros(5), {site: np.zeros(5) for site in tables}
    for _ in range(ROUNDS):
        results, deltas = [], []
        for site, (x, y) in tables.items():
            w = x0.copy()
            for _ in range(3):
                w -= RATE * (x.T @ (x @ w - y) / len(x) - own[site] + c)
            new = own[site] - c + (x0 - w) / (3 * RATE)
            results.append(w.astype(np.float32).astype(np.float64))
            deltas.append(new - own[site])
            own[site] = new
        x0 = np.mean(results, axis=0).astype(np.float32).astype(np.float64)
        c = c + np.mean(deltas, axis=0)
    got, _ = run(running, SCAFFOLD, type="scaffold")
    assert got["model"] == pytest.approx(x0, rel=1e-5, abs=1e-5)


def test_cyclic_visits_the_sites_in_turn(running: Federation, tables: dict[str, Table]) -> None:
    w = first_model()
    for _ in range(ROUNDS):
        for table in tables.values():
            w = local(table, w)
    got, view = run(running, type="cyclic")
    assert got["model"] == pytest.approx(w, abs=1e-6)
    assert view["history"][0]["order"] == ["site-1", "site-2", "site-3"]


def test_the_best_model_is_kept_and_training_stops_early(running: Federation, tables: dict[str, Table]) -> None:
    script = REGRESSION.replace("for _ in range(3)", "for _ in range(3 if model.current_round < 3 else 0)").replace(
        "w -= rate", "w += (5 if model.current_round == 2 else 0); w -= rate"
    )
    stop = {"metric": "loss", "patience": 2}
    got, view = run(running, script, type="fedavg", rounds=20, best="loss", early_stop=stop, final_evaluation=True)
    losses = [entry["metrics"]["loss"] for entry in view["history"]]
    best = int(np.argmin(losses))
    assert best == 2
    assert view["best_metric"] == {"metric": "loss", "value": losses[best], "round": best}
    assert len(losses) == 6  # two rounds without a better one, and the final evaluation
    weights = [len(table[0]) for table in tables.values()]
    measured = np.average([loss(table, got["best"]) for table in tables.values()], weights=weights)
    assert measured == pytest.approx(losses[best], rel=1e-6)
    assert not np.array_equal(got["best"], got["model"])


@SLOW
def test_a_sample_of_the_sites_trains_each_round(running: Federation, tables: dict[str, Table]) -> None:
    got, view = run(running, type="fedavg", sample=2, rounds=6)
    chosen = [tuple(entry["sites"]) for entry in view["history"]]
    assert {len(sites) for sites in chosen} == {2}
    assert len(set(chosen)) > 1
    w = first_model()
    for sites in chosen:
        w = np.average(
            [local(tables[site], w).astype(np.float64) for site in sites],
            axis=0,
            weights=[len(tables[site][0]) for site in sites],
        ).astype(np.float32)
    assert got["model"] == pytest.approx(w, abs=3e-7)


EVALUATING = REGRESSION.replace(
    "    for _ in range(3)",
    "    if flare.is_evaluate():\n"
    "        flare.send(flare.FLModel(metrics={'loss': loss}))\n"
    "        continue\n"
    "    for _ in range(3)",
)


def test_cross_site_evaluation_measures_every_model_everywhere(running: Federation, tables: dict[str, Table]) -> None:
    got, view = run(running, EVALUATING, type="cross_site", rounds=2)
    table = view["history"][-1]["cross_site"]
    assert set(table) == {"server", *tables}
    for site, data in tables.items():
        assert table["server"][site]["loss"] == pytest.approx(loss(data, got["model"]), rel=1e-5)
        assert table[site][site]["loss"] == pytest.approx(loss(data, local(data, got["model"])), rel=1e-5)


@SLOW
def test_evaluation_only_trains_nothing(running: Federation, tables: dict[str, Table]) -> None:
    got, view = run(running, EVALUATING, type="evaluate")
    assert np.array_equal(got["model"], first_model())
    each = view["history"][0]["sites"]
    assert each["site-1"]["loss"] == pytest.approx(loss(tables["site-1"], first_model()), rel=1e-6)


@SLOW
@pytest.mark.parametrize(
    ("workflow", "why"),
    [
        ({"type": "fedavg", "aggregator": "magic"}, "There is no aggregator 'magic'"),
        ({"type": "fedavg", "aggregator": {"type": "krum", "byzantine": 1}}, "needs at least 4 results, not 3"),
        ({"type": "fedopt", "optimizer": {"type": "adam", "speed": 3}}, "workflow.optimizer"),
        ({"type": "scaffold"}, "lacks the control's change c_delta.w"),
    ],
)
def test_a_wrong_setting_is_told(
    running: Federation, tables: dict[str, Table], workflow: dict[str, Any], why: str
) -> None:
    with pytest.raises(JobError, match=why):
        run(running, **workflow)
