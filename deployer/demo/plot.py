"""The demo's pictures: a PNG, bars for the terminal, and a sparkline."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployer.demo.compare import Comparison

_LEVELS = "▁▂▃▄▅▆▇█"
_BAR = 40
_BLUE = "#1f6feb"


def sparkline(values: Sequence[float], low: float = 0.0, high: float = 1.0) -> str:
    """One character for each value between low and high."""
    steps = len(_LEVELS) - 1
    return "".join(_LEVELS[round(min(max((value - low) / (high - low), 0), 1) * steps)] for value in values)


def bars(comparison: Comparison) -> list[str]:
    """The comparison as lines of text, the longest bar for an accuracy of 1."""
    lines = []
    for label, accuracy, remark in comparison.rows():
        bar = "█" * round(accuracy * _BAR)
        lines.append(f"{label:<14} {bar:<{_BAR}} {accuracy:6.1%}  {remark}")
    return lines


def save_png(path: Path, comparison: Comparison, rounds: Mapping[str, Sequence[float]], title: str) -> None:
    """The global model's accuracy on each site's own rows by round, beside the comparison on the held-out set.

    `rounds` has the accuracies by site, one for each round, as the sites reported them.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 2))
    for (site, accuracies), style in zip(rounds.items(), itertools.cycle(("-", "--", ":", "-."))):
        left.plot(range(1, len(accuracies) + 1), accuracies, style, marker="o", markersize=3, color=_BLUE, label=site)
    left.set(xlabel="round", ylabel="accuracy on the site's own rows", ylim=(0, 1.02), title=title)
    left.legend(loc="lower right", frameon=False)
    rows = comparison.rows()[::-1]
    colour = [{"federated": _BLUE, "pooled": "#2da44e"}.get(row[0], "#8b949e") for row in rows]
    drawn = right.barh([row[0] for row in rows], [row[1] for row in rows], color=colour)
    right.bar_label(drawn, labels=[f"{row[1]:.1%}" for row in rows], padding=3)
    right.set(xlim=(0, 1.15), title="on images that no site has seen")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
