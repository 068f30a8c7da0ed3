"""Which protocol two sides speak: each its own major and the one before; anything else is refused with the way out.

A side of major N that talks to one of N - 1 speaks N - 1: it sends none of the messages that came with N. That is one
table, so that adding a message needs no thought about older peers: what major 1 knows is written down here, whatever
else is in the protocol is newer.
"""

from __future__ import annotations

from fl_runtime import version
from fl_runtime.names import PROTOCOL_MAJOR, PROTOCOL_MINOR
from fl_runtime.proto import fedspan_pb2 as pb

OLDEST_MAJOR = PROTOCOL_MAJOR - 1

# The messages of protocol 1, in both directions. Never changes.
_MAJOR_1 = frozenset(
    (
        *("hello", "heartbeat", "job_answer", "task_result", "log", "metric", "site_state"),
        *("welcome", "refusal", "job_start", "job_stop", "task", "task_cancel", "result_ack"),
    )
)


def knows(major: int, kind: str) -> bool:
    """Whether a peer that speaks `major` understands messages of this kind (a field's name in ToHub, ToParticipant)."""
    return major >= PROTOCOL_MAJOR or kind in _MAJOR_1


def accepted(major: int) -> bool:
    return OLDEST_MAJOR <= major <= PROTOCOL_MAJOR


def upgrade(older: str) -> str:
    """The command that brings the older side up."""
    return f"python3 -m pip install --upgrade 'fedspan=={older}', then start it again"


def refusal(hello: pb.Hello) -> pb.Refusal | None:
    """What a hub answers to a Hello whose major it does not speak; None when it does."""
    if accepted(hello.major):
        return None
    here, there = version(), hello.version or "an unknown version"
    if hello.major < OLDEST_MAJOR:
        who, next_step = "the site is too old", upgrade(here)
    else:
        who, next_step = "the server is too old", f"on the server: {upgrade(hello.version or 'VERSION')}"
    return pb.Refusal(
        what=f"The server speaks protocols {OLDEST_MAJOR} and {PROTOCOL_MAJOR}, this site {hello.major}.{hello.minor}",
        why=f"{who}: the server runs fedspan {here}, the site {there}",
        next=next_step,
        major=PROTOCOL_MAJOR,
        minor=PROTOCOL_MINOR,
    )
