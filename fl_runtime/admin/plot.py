"""A picture of a job's metrics beside its other results, where matplotlib is installed (the extra `plot`)."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
from pathlib import Path
from typing import Any

NAME = "plot.png"
_PANELS = 12  # more metrics than that are in history.csv only
_COLUMNS = 3
_BLUE, _GREY = "#1f6feb", "#8b949e"
Curves = dict[str, list[tuple[float, float]]]  # site (empty: the mean) -> points


def draw(folder: Path) -> bool:
    """Draw `metrics.json` of a downloaded job as `plot.png`: one panel for each metric by round or step, the mean of
    all sites in blue. False where there is nothing to draw or to draw with: see `why_none`."""
    if why_none(folder) is not None:
        return False
    view = json.loads((folder / "metrics.json").read_text())
    panels = curves(view)
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    shown = list(panels.items())[:_PANELS]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows), layout="constrained")
    figure.suptitle(f"{view['id']}  ({str(view['state']).lower()})")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for (name, by_site), panel in zip(shown, axes, strict=False):
        styles = itertools.cycle(("--", ":", "-.", "-"))
        for site, points in sorted(by_site.items(), reverse=True):  # the mean last, above the others
            style: dict[str, Any] = {"color": _BLUE, "linewidth": 2, "marker": "o"}
            if site:
                style = {"color": _GREY, "linestyle": next(styles)}
            panel.plot(*zip(*points, strict=True), markersize=3, label=site or "all sites", **style)
        panel.set(title=name, xlabel="step" if name.startswith("log: ") else "round")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
        if len(by_site) <= 6:
            panel.legend(frameon=False, fontsize="small")
    for panel in list(axes)[len(shown) :]:
        panel.set_visible(False)
    figure.savefig(folder / NAME, dpi=110)
    return True


def why_none(folder: Path) -> str | None:
    """Why a job's folder can have no plot, and what would help; None when it can."""
    view = json.loads((folder / "metrics.json").read_text())
    if not view["spec"].get("tracking", {}).get("plot", True):
        return "the job says `tracking: {plot: false}`"
    if not curves(view):
        return "the sites sent no metrics"
    if importlib.util.find_spec("matplotlib") is None:
        return "matplotlib is not installed here: pip install 'fedspan[plot]'"
    return None


def curves(view: dict[str, Any]) -> dict[str, Curves]:
    """What there is to draw: metrics of results by round, then what scripts streamed (`log: NAME`) by step."""
    found: dict[str, Curves] = {}

    def add(name: str, site: str, at: Any, value: Any) -> None:
        if isinstance(value, (int, float)) and math.isfinite(value):
            found.setdefault(name, {}).setdefault(site, []).append((at, float(value)))

    for entry in view["history"]:
        means = entry.get("metrics") or {}
        for name, value in means.items():
            add(name, "", entry["round"], value)
            for site, values in (entry.get("sites") or {}).items():
                add(name, site, entry["round"], values.get(name))
    for item in view["metrics"]:
        name = f"log: {item['key']}"
        step = item.get("step")
        known = found.get(name, {}).get(item["site"], [])
        add(name, item["site"], len(known) if step is None else step, item["value"])
    return found
