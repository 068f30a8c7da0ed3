"""A job's view in words. Pure."""

from __future__ import annotations

from typing import Any

ENDED = ("FINISHED", "FAILED", "ABORTED")


def duration(view: dict[str, Any]) -> str:
    """How long a job ran, or runs so far; nothing before its start."""
    if view.get("seconds") is None:
        return ""
    return f", {'ran' if view['state'] in ENDED else 'runs for'} {view['seconds']:.1f} s"


def best_in_words(best: dict[str, Any]) -> str:
    """As the built-in workflows note it (metric, value, round), or what an own controller has said."""
    if "metric" in best:
        return f"{best['metric']} {best['value']:.4g} in round {best['round']}"
    return ", ".join(f"{key} {value}" for key, value in best.items())
