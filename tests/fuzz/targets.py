"""What is fuzzed: each target takes bytes as anybody may send them. Only our own errors may come out; anything else,
a hang, or memory without end is a bug. `test_fuzz.py` feeds them from hypothesis, `guided.py` from atheris.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import document_targets as documents
import message_targets as messages
from fuzz_world import Target

from fl_runtime.proto import fedspan_pb2 as pb

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        *(documents.frames, documents.manifests, documents.archives, documents.job_files, documents.job_folders),
        *(documents.kits, documents.envelopes, documents.orders, documents.certificates, documents.revocations),
        *(documents.models, documents.containers, messages.from_site, messages.hellos, messages.calls),
        *(messages.from_hub, messages.local_requests, messages.from_workflow),
    )
}
# What of a sample says which part of its target it is for: of every part a sample must be taken.
PARTS: dict[str, Callable[[bytes], Any]] = {
    "kits": lambda data: data,
    "from_site": lambda data: pb.ToHub.FromString(data).WhichOneof("body"),
    "from_hub": lambda data: pb.ToParticipant.FromString(data).WhichOneof("body"),
    "calls": lambda data: data[0],
    "from_workflow": lambda data: json.loads(data)["op"],
}
# But of these, of which nobody hears: a Hello that is not the first message; and where a run goes on that is not there.
NOT_TAKEN = {("from_site", "hello"), ("from_hub", "report_have")}


@contextlib.contextmanager
def no_thread_dies() -> Any:
    """A thread of ours that ends with an exception is a bug too."""
    died: list[Any] = []
    before = threading.excepthook
    threading.excepthook = died.append
    try:
        yield
    finally:
        threading.excepthook = before
    assert not died, [(entry.exc_type, entry.exc_value) for entry in died]
