"""The process in which filters and codecs run: `python -m fl_runtime.filters.run`, a child of the agent or of the hub.

Requests come on stdin, one JSON object a line, and name files; replies go out the same way. It ends when its parent is
gone, in the middle of a request too, and when nothing was asked for a while.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fl_runtime.errors import FlError
from fl_runtime.filters.base import FilterError, Work
from fl_runtime.filters.chain import run as run_filters
from fl_runtime.models.tensors import TensorFile
from fl_runtime.patience import is_full

IDLE_S = 20.0


def source(document: Mapping[str, Any] | None) -> Path | bytes | None:
    """`{file: PATH}` or `{data: base64}`; None when there is no content."""
    if document is None:
        return None
    return Path(document["file"]) if document.get("file") else base64.b64decode(document["data"])


def _filter(request: Mapping[str, Any]) -> dict[str, Any]:
    """Request: input, base, meta, filters, code, output, releases. Reply: meta, and what became of the tensors."""
    content, base = source(request.get("input")), source(request.get("base"))
    output, code = Path(request["output"]), request.get("code")
    work = Work(
        meta=dict(request["meta"]),
        base=TensorFile(base) if base is not None else None,
        key=os.urandom(16),
        scratch=output.parent,
        releases=int(request.get("releases", 1)),
        task=str(request.get("task", "")),
        site=str(request.get("site", "")),
    )
    if content is None:
        content = _EMPTY
    written = run_filters(request["filters"], content, output, work, Path(code) if code else None)
    if content is _EMPTY and written == "same":
        written = "none"
    return {"tensors": written, "meta": work.meta}


def _encode(request: Mapping[str, Any]) -> dict[str, Any]:
    """Request: input, codecs, base, base_id, is_diff, output. Reply: form (empty: send it plain), base, lossless."""
    from fl_runtime.codecs.encode import encode

    content = source(request["input"])
    assert content is not None
    return dict(
        encode(
            content,
            request["codecs"],
            Path(request["output"]),
            base=source(request.get("base")),
            base_id=str(request.get("base_id", "")),
            is_diff=bool(request.get("is_diff")),
        )
    )


def _decode(request: Mapping[str, Any]) -> dict[str, Any]:
    """Request: input, base, base_id, limit, output."""
    from fl_runtime.codecs.decode import decode

    content = source(request["input"])
    assert content is not None
    base, base_id = source(request.get("base")), str(request.get("base_id", ""))
    decode(content, Path(request["output"]), int(request["limit"]), base, base_id)
    return {}


_EMPTY = b"\x02\0\0\0\0\0\0\0{}"  # a safetensors file without tensors: results may be metrics only

_Operation = Callable[[Mapping[str, Any]], dict[str, Any]]
OPERATIONS: dict[str, _Operation] = {"filter": _filter, "encode": _encode, "decode": _decode}


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """One request; errors become replies fit for the server. `full`: the disk is, and it may be asked again."""
    try:
        return OPERATIONS[request["op"]](request)
    except FlError as error:
        _tell()
        return {"error": str(error)}
    except OSError as error:
        _tell()
        return {"error": f"a file can't be written: {error.strerror}", "full": is_full(error)}
    except Exception as error:
        _tell()
        return {"error": str(FilterError("It failed", why=type(error).__name__))}


def _tell() -> None:
    """The whole error, for the log of the parent's; that may have no room for it."""
    with contextlib.suppress(OSError):
        traceback.print_exc()


def main() -> int:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what somebody's filter prints is no reply
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # the parent is gone: what is being written is nobody's

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=IDLE_S)
        except queue.Empty:
            return 0
        replies.write(json.dumps(answer(json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    sys.exit(main())
