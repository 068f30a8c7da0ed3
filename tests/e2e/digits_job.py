"""A job of the digits example, and data for its sites."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]

JOB = """\
name: figure
workflow: {type: fedavg, rounds: 2}
script: train.py
data: [digits]
"""


def job_folder(folder: Path) -> Path:
    """Two rounds of the digits example."""
    folder.mkdir()
    shutil.copy(ROOT / "examples/digits/train.py", folder)
    (folder / "job.yml").write_text(JOB)
    return folder


def data_folder(folder: Path, seed: int) -> Path:
    """Rows like those of the digits, drawn at random."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    x = rng.random((80, 64), dtype=np.float32)
    np.savez(folder / "digits.npz", x=x, y=rng.integers(0, 10, 80))
    return folder
