"""What federation brought: the federated model against what each site could do alone, on one held-out set."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from deployer.demo.data import Rows

Model = dict[str, npt.NDArray[np.float32]]
#: Passes over a site's data in each round; the job's script has the same figure.
EPOCHS_A_ROUND = 2


@dataclass(frozen=True)
class Comparison:
    """Accuracies (0 to 1) on the held-out set."""

    untrained: float
    alone: Mapping[str, float]
    federated: float
    pooled: float

    @property
    def best_alone(self) -> float:
        return max(self.alone.values())

    @property
    def won(self) -> bool:
        """Whether the federated model beats every single site."""
        return self.federated > self.best_alone

    def rows(self) -> list[tuple[str, float, str]]:
        """Label, accuracy and remark of each line to show."""
        return [
            ("untrained", self.untrained, "where all begin"),
            *((f"{site} alone", accuracy, "its own rows only") for site, accuracy in self.alone.items()),
            ("federated", self.federated, "all sites, no row moved"),
            ("pooled", self.pooled, "for reference; impossible in the field"),
        ]


def load_script(path: Path) -> ModuleType:
    """The job's own training script as a module, so that the comparison trains with the very same code."""
    spec = importlib.util.spec_from_file_location("fedspan_demo_train", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(script: ModuleType, parts: Mapping[str, Rows], held_out: Rows, federated: Model, rounds: int) -> Comparison:
    """Trains each site alone and all rows pooled, for as many passes as the federated model had, and measures all."""

    def trained(rows: Rows) -> Model:
        model: Model = script.init()
        for number in range(rounds):
            model = script.train(model, rows.x, rows.y, epochs=EPOCHS_A_ROUND, seed=number)
        return model

    def measured(model: Model) -> float:
        return float(script.accuracy(model, held_out.x, held_out.y))

    pooled = Rows(np.concatenate([p.x for p in parts.values()]), np.concatenate([p.y for p in parts.values()]))
    return Comparison(
        untrained=measured(script.init()),
        alone={site: measured(trained(rows)) for site, rows in parts.items()},
        federated=measured(federated),
        pooled=measured(trained(pooled)),
    )
