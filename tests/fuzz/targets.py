"""What is fuzzed: each target takes bytes as anybody may send them. Only our own errors may come out; anything else,
a hang, or memory without end is a bug. `test_fuzz.py` feeds them from hypothesis, `guided.py` from atheris.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import document_targets as documents
import message_targets as messages
from fuzz_world import Target

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        *(documents.frames, documents.manifests, documents.archives, documents.job_files, documents.job_folders),
        *(documents.kits, documents.envelopes, documents.orders, documents.certificates, documents.revocations),
        *(documents.models, documents.containers, messages.from_site, messages.hellos, messages.calls),
        *(messages.from_hub, messages.local_requests, messages.from_workflow),
    )
}
# None of these may take anything; of every other target, a well-formed sample must be taken.
NEVER_TAKEN = {"certificates"}


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
