"""Metric writers with the names that scripts know: all of them stream to the server (see `flare.log`)."""

from __future__ import annotations

from typing import Any

import fl_runtime.client as flare


class SummaryWriter:
    """As TensorBoard's, for numbers."""

    def add_scalar(self, tag: str, scalar: float, global_step: int | None = None, **_: Any) -> None:
        flare.log(tag, scalar, global_step=global_step)

    def add_scalars(self, tag: str, scalars: dict[str, float], global_step: int | None = None, **_: Any) -> None:
        for key, value in scalars.items():
            flare.log(f"{tag}/{key}", value, global_step=global_step)

    def flush(self) -> None: ...

    def close(self) -> None: ...


class MLflowWriter(SummaryWriter):
    """As MLflow's `log_metric`."""

    def log_metric(self, key: str, value: float, step: int | None = None, **_: Any) -> None:
        flare.log(key, value, global_step=step)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None, **_: Any) -> None:
        for key, value in metrics.items():
            flare.log(key, value, global_step=step)


class WandBWriter(SummaryWriter):
    """As Weights & Biases' `log`."""

    def log(self, metrics: dict[str, float], step: int | None = None, **_: Any) -> None:
        for key, value in metrics.items():
            flare.log(key, value, global_step=step)
