"""A job's results as a folder: model, best model, metrics, history, logs; from a server or from a simulation."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Fetch = Callable[[str, Path], None]


def write_results(view: dict[str, Any], target: Path, fetch: Fetch, log: Fetch) -> Path:
    """Write `view` (of `Session.show`) and what belongs to it; `target` appears when all is there.

    Args:
        fetch: brings the blob of this id (hex) to a path.
        log: brings the log of this participant to a path.
    """
    partial = partial_folder(target)
    (partial / "logs").mkdir(parents=True, exist_ok=True)
    for key, name in (("model", "model.safetensors"), ("best", "best.safetensors")):
        if view.get(key):
            fetch(view[key]["blob"], partial / name)
    for name in view["logs"]:
        log(name, partial / "logs" / f"{Path(name).name}.log")
    (partial / "metrics.json").write_text(json.dumps(view, indent=2) + "\n")
    if view["spec"].get("tracking", {}).get("csv", True):
        write_history(view, partial / "history.csv")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def partial_folder(target: Path) -> Path:
    """Where results are gathered until all are there; a download that was broken off goes on from it."""
    return target.with_name(f".{target.name}.partial")


def write_history(view: dict[str, Any], path: Path) -> None:
    """One row for each number: round, site (empty: the mean), metric, value."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "site", "metric", "value"])
        for entry in view["history"]:
            for key, value in (entry.get("metrics") or {}).items():
                writer.writerow([entry["round"], "", key, value])
            for site, values in (entry.get("sites") or {}).items():
                for key, value in values.items():
                    writer.writerow([entry["round"], site, key, value])
