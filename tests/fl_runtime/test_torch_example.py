"""examples/torch-digits on a real federation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from federation import Federation

EXAMPLE = Path(__file__).parents[2] / "examples/torch-digits"


@pytest.mark.slow
def test_the_torch_example_learns_digits_that_stay_on_their_sites(fresh: Federation) -> None:
    torch = pytest.importorskip("torch")
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    for site, rows in zip(fresh.sites, np.array_split(order, len(fresh.sites)), strict=True):
        path = fresh.root / f"{site}.npz"
        np.savez(path, x=images[rows], y=labels[rows])
        fresh.data(site, digits=path)
    with fresh.session() as session:
        job = session.submit(EXAMPLE)
        view = session.wait(job, 240)
        target = session.download(job, fresh.root / "results")
    scores = [entry["metrics"]["accuracy"] for entry in view["history"]]
    assert len(scores) == 6
    assert scores[0] < 0.3
    assert scores[-1] > 0.9
    from safetensors.torch import load_file

    model = load_file(target / "model.safetensors")
    assert model["0.weight"].shape == (16, 1, 3, 3)
    assert model["0.weight"].dtype is torch.float32
