"""The plain part of a result: what goes beside its tensors. No numpy here: the hub reads it too."""

from __future__ import annotations

import json
from typing import Any

WEIGHT_KEY = "NUM_STEPS_CURRENT_ROUND"


def parse_meta(data: bytes) -> dict[str, Any]:
    """The plain part of a result.

    Raises:
        ValueError: it is not of the form that results have; says what is wrong.
    """
    try:
        meta = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its meta is not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise ValueError("its meta is no mapping")
    for key in ("meta", "metrics"):
        if not isinstance(meta.get(key) or {}, dict):
            raise ValueError(f"its {key} is no mapping")
    for name, value in (meta.get("metrics") or {}).items():
        if not isinstance(value, (int, float)):
            raise ValueError(f"its metric {name[:40]!r} is no number")
    weight = (meta.get("meta") or {}).get(WEIGHT_KEY)
    try:
        float(1 if weight is None else weight)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"its {WEIGHT_KEY} is no number") from None
    return meta
