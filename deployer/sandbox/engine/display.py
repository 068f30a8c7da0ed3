"""What a deployment prints on stdout: a line for each step, then diagnostics, outputs and counts."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from . import urns

if TYPE_CHECKING:
    from .asked import Request

_TITLES = {"update": "Updating", "preview": "Previewing update", "refresh": "Refreshing", "destroy": "Destroying"}
_SIGNS = {
    "create": "+ ",
    "update": "~ ",
    "delete": "- ",
    "same": "  ",
    "replace": "+-",
    "create-replacement": "++",
    "delete-replaced": "--",
    "import": "= ",
    "read": "> ",
    "refresh": "~ ",
}
_DOING = {
    "create": ("creating", "created"),
    "update": ("updating", "updated"),
    "delete": ("deleting", "deleted"),
    "replace": ("replacing", "replaced"),
    "create-replacement": ("creating replacement", "created replacement"),
    "delete-replaced": ("deleting original", "deleted original"),
    "import": ("importing", "imported"),
    "read": ("reading", "read"),
    "refresh": ("refreshing", "refreshed"),
}


class Display:
    """Listens to the events of one command."""

    def __init__(self, request: Request, stack: str) -> None:
        self.request, self.stack = request, stack
        self._diagnostics: dict[str, list[str]] = {}
        self._outputs: dict[str, Any] = {}
        self._changes: dict[str, int] = {}
        self._errors = 0
        self._begun: dict[tuple[str, str], float] = {}
        self._started = time.monotonic()

    def _line(self, text: str = "") -> None:
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            pass  # nobody reads: the deployment goes on

    def header(self) -> None:
        title = _TITLES.get(self.request.verb, self.request.verb)
        if self.request.preview:
            title = {"update": "Previewing update", "refresh": "Previewing refresh", "destroy": "Previewing destroy"}[
                self.request.verb
            ]
        self._line(f"{title} ({self.stack}):\n")

    def __call__(self, event: dict[str, Any]) -> None:
        if "resourcePreEvent" in event:
            self._step(event["resourcePreEvent"]["metadata"], 0)
        elif "resOutputsEvent" in event:
            self._step(event["resOutputsEvent"]["metadata"], 1)
        elif "resOpFailedEvent" in event:
            self._step(event["resOpFailedEvent"]["metadata"], 2)
        elif "diagnosticEvent" in event:
            body = event["diagnosticEvent"]
            text = body["prefix"] + body["message"].rstrip("\n")
            self._errors += body["severity"] == "error"
            if body["severity"] in {"error", "warning", "info"}:
                self._diagnostics.setdefault(body.get("urn", ""), []).append(text)
        elif "stdoutEvent" in event:
            self._line(event["stdoutEvent"]["message"])
        elif "summaryEvent" in event:
            self._changes = event["summaryEvent"]["resourceChanges"]

    def _step(self, about: dict[str, Any], moment: int) -> None:
        op, urn = about["op"], about["urn"]
        if moment == 1 and about["type"] == urns.STACK_TYPE and about.get("new"):
            self._outputs = about["new"]["outputs"]
        if urns.is_default_provider(urn) or op == "same" or (self.request.preview and moment == 0):
            return
        if moment == 0:
            self._begun[urn, op] = time.monotonic()
        words = _DOING.get(op, (op, op))
        word = op if self.request.preview else f"**{words[0]} failed**" if moment == 2 else words[moment]
        took = ""
        if not self.request.preview:
            took = f" ({time.monotonic() - self._begun.get((urn, op), time.monotonic()):.0f}s)"
        diffs = f" [diff: {','.join('~' + d for d in about['diffs'])}]" if about.get("diffs") else ""
        self._line(f" {_SIGNS.get(op, '  ')} {about['type']} {urns.name_of(urn)} {word}{took}{diffs}")

    def footer(self, ok: bool) -> None:
        if self._diagnostics:
            self._line("Diagnostics:")
            for urn, texts in self._diagnostics.items():
                type_ = urns.type_of(urn) if urn else urns.STACK_TYPE
                self._line(f"  {type_} ({urns.name_of(urn) if urn else self.stack}):")
                for text in texts:
                    self._line("\n".join(f"    {line}" for line in text.split("\n")))
                self._line()
        if self._outputs and not self.request.suppress_outputs:
            self._line("Outputs:")
            width = max(map(len, self._outputs))
            for key, value in sorted(self._outputs.items()):
                self._line(f"    {key:{width}}: {_shown(value)}")
            self._line()
        self._line("Resources:")
        done = {
            "create": "created",
            "update": "updated",
            "delete": "deleted",
            "replace": "replaced",
            "import": "imported",
        }
        for op, count in self._changes.items():
            if op == "same":
                self._line(f"    {count} unchanged")
            else:
                word = f"to {op}" if self.request.preview else done.get(op, op)
                self._line(f"    {_SIGNS.get(op, '  ')}{count} {word}")
        if self._errors:
            self._line(f"    {self._errors} errored")
        if not self.request.preview:
            self._line(f"\nDuration: {time.monotonic() - self._started:.0f}s")
        self._line()

    def plan_saved(self, path: str) -> None:
        sys.stderr.write(
            f"Update plan written to '{path}'\nRun `pulumi up --plan='{path}'` to constrain the update to the "
            "operations planned by this preview\n"
        )


def _shown(value: Any) -> str:
    import json

    from .values import SIGNATURE, UNKNOWN_TEXT

    if isinstance(value, dict) and SIGNATURE in value:
        return "[secret]"
    return "[unknown]" if value == UNKNOWN_TEXT else json.dumps(value)
