"""The plain part of a task or result: what goes beside its tensors. No numpy here: the hub reads it too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fl_runtime.errors import FlError
from fl_runtime.names import PLAIN_LIMIT

WEIGHT_KEY = "NUM_STEPS_CURRENT_ROUND"


class TooLargeError(FlError):
    """Plain data that fits into no message, now or later."""


def check_size(meta: Mapping[str, Any], whose: str) -> None:
    """Does it fit into a message?

    Args:
        whose: for people: `the task train of round 3`.

    Raises:
        TooLargeError: no.
    """
    size = len(json.dumps(meta))
    if size > PLAIN_LIMIT:
        raise TooLargeError(
            f"The plain data of {whose} is too large to be sent",
            why=f"{size / 1e6:.1f} MB beside its model; at most {PLAIN_LIMIT / 1e6:.1f} MB travel",
            next_step="put large data into tensors (params), or into the job's folder",
        )


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
