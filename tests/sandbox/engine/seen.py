"""What two engines must agree on: a record without what differs from run to run, and the differences of two.

Compared of each step, with what may differ in order put in order first: the exception's class, each command's exit
code, the engine's events (kind, operation, resource, properties that differ), its error and warning messages, the
change counts, the provider's calls, the world, and the checkpoint (resources with all their fields, pending
operations, locks). Not compared: what the command prints on stdout, the history's wording, times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_TEXT = [
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:<port>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"\((\d+(\.\d+)?(ms|s|m))+\)"), "(<duration>)"),
    (re.compile(r"v1:[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+(:[A-Za-z0-9+/=]+)*"), "<ciphertext>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"\b(?!04da6b54)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\(pid \d+\)"), "(pid <pid>)"),
    (re.compile(r"by \S+@\S+"), "by <user>@<host>"),
    (re.compile(r"/tmp/[\w./-]+"), "<tmp>"),
]
_LEFT_OUT = {"stackTrace", "sourcePosition", "environment"}  # of the recording machine, not of the engine
_TIMES = {"timestamp", "time", "created", "modified", "startTime", "endTime", "start_time", "end_time", "last_update"}


def normal(value: Any, key: str = "") -> Any:
    """The record without times, ports, digests, ciphertexts and generated ids."""
    if isinstance(value, dict):
        return {k: normal(v, k) for k, v in value.items() if k not in _LEFT_OUT}
    if isinstance(value, list):
        return [normal(v) for v in value if not _debug(v)]
    if key in _TIMES and isinstance(value, (int, float, str)):
        return "<time>"
    if key in {"pid", "username", "hostname", "sequence"}:
        return f"<{key}>"
    if isinstance(value, str):
        for pattern, replacement in _TEXT:
            value = pattern.sub(replacement, value)
    return value


def _debug(value: Any) -> bool:
    """Debug lines of the SDK say nothing of the engine."""
    return isinstance(value, dict) and value.get("diagnostic_event", {}).get("severity") == "debug"


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _events(step: dict[str, Any]) -> dict[str, Any]:
    acts, messages, summary = [], [], None
    for event in step["events"]:
        for kind in ("resource_pre_event", "res_outputs_event", "res_op_failed_event"):
            if kind in event:
                meta = event[kind]["metadata"]
                diffs, keys = sorted(meta.get("diffs") or []), sorted(meta.get("keys") or [])
                acts.append([kind, meta["op"], meta["urn"], diffs, keys, bool(event[kind].get("planning"))])
        if "diagnostic_event" in event:
            said = event["diagnostic_event"]
            if said.get("severity") in {"warning", "error"}:
                messages.append([said["severity"], said.get("urn", ""), said["message"].splitlines()[0].strip()])
        if "summary_event" in event:
            summary = event["summary_event"].get("resource_changes")
    return {"events": sorted(acts, key=_key), "messages": sorted(messages), "changes": summary, "order": _order(acts)}


def _order(acts: list[list[Any]]) -> list[list[str]]:
    """For each resource, its operations in the order of their events: order among different resources may vary."""
    by_urn: dict[str, list[str]] = {}
    for kind, op, urn, *_ in acts:
        by_urn.setdefault(urn, []).append(f"{kind}:{op}")
    return sorted([urn, *ops] for urn, ops in by_urn.items())


def _checkpoints(step: dict[str, Any]) -> dict[str, Any]:
    out = {}
    for name, file in step["state"]["checkpoints"].items():
        latest = file["checkpoint"].get("latest") or {}
        pending = ([p["type"], p["resource"]["urn"]] for p in latest.get("pending_operations") or [])
        out[name] = {
            "resources": sorted((_resource(r) for r in latest.get("resources") or []), key=_key),
            "pending": sorted(pending, key=_key),
            "dependencies come first": topological(latest.get("resources") or []),
        }
    return out


def _resource(resource: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in resource.items() if k not in {"created", "modified", "sourcePosition", "stackTrace"}}
    if isinstance(kept.get("dependencies"), list):
        kept["dependencies"] = sorted(kept["dependencies"])
    return kept


def topological(resources: list[dict[str, Any]]) -> bool:
    """Whether each resource comes after its parent and its dependencies."""
    seen: set[str] = set()
    for resource in resources:
        needs = [*(resource.get("dependencies") or []), *filter(None, [resource.get("parent")])]
        if any(need not in seen for need in needs):
            return False
        seen.add(resource["urn"])
    return True


def view(step: dict[str, Any]) -> dict[str, Any]:
    """The part of a step that two engines must agree on."""
    named = [[next(a for a in c["argv"] if a != "--non-interactive"), c["exit"]] for c in step["commands"]]
    errors = [line for c in step["commands"] for line in c["stderr"].splitlines() if line.startswith("error:")]
    calls = (c for c in step["provider_calls"] if c["method"] not in {"Handshake", "Attach", "Cancel"})
    return {
        "raised": step.get("raised", {}).get("class"),
        "commands": [c for c in named if c[0] != "version"],
        "error lines": errors,
        "provider calls": sorted(map(_key, calls)),
        "world": step["world"],
        "locks": len(step["state"]["locks"]),
        "checkpoints": _checkpoints(step),
        **_events(step),
    }


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Where two views differ, one line each."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            if key not in a or key not in b:
                side = "the record" if key in a else "this run"
                yield f"{where}/{key}: only in {side}: {_key(a.get(key, b.get(key)))[:300]}"
            else:
                yield from differences(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list) and isinstance(b, list) and a != b:
        left, right = [_key(v) for v in a], [_key(v) for v in b]
        yield from (f"{where}: missing {text[:400]}" for text in left if text not in right)
        yield from (f"{where}: too much {text[:400]}" for text in right if text not in left)
        if sorted(left) == sorted(right):
            yield f"{where}: another order"
    elif a != b:
        yield f"{where}: recorded {_key(a)[:300]}, here {_key(b)[:300]}"
