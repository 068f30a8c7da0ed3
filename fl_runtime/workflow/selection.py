"""Which of two metric values is better."""

from __future__ import annotations

from typing import Any

from fl_runtime.errors import JobSpecError

_LOW = ("loss", "error", "rmse", "mse", "mae", "perplexity")


def metric_and_mode(wanted: Any) -> tuple[str, str]:
    """`accuracy`, or {metric: loss, mode: min}. Without a mode, losses and errors are better when low.

    Raises:
        JobSpecError: neither of them.
    """
    if isinstance(wanted, str):
        wanted = {"metric": wanted}
    if not isinstance(wanted, dict) or not isinstance(wanted.get("metric"), str):
        raise JobSpecError("A metric is named by a word or {metric: NAME, mode: max|min}", why=f"it is {wanted!r}")
    metric = wanted["metric"]
    mode = wanted.get("mode") or ("min" if any(word in metric.lower() for word in _LOW) else "max")
    if mode not in ("min", "max"):
        raise JobSpecError("mode is min or max", why=f"it is {mode!r}")
    return metric, mode


def is_better(value: float, than: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Whether a value is better by more than `min_delta`; anything is better than nothing, NaN is never better."""
    if value != value:
        return False
    if than is None:
        return True
    return value > than + min_delta if mode == "max" else value < than - min_delta
