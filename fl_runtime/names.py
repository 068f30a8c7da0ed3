"""Small things that everything here shares: identifiers, times, limits of the protocol."""

from __future__ import annotations

import re
import secrets
import time
from datetime import datetime, timezone
from importlib.util import find_spec

PROTOCOL_MAJOR = 2
PROTOCOL_MINOR = 0
# What a Hello and a Welcome tell; zstd is there where its library is.
GO_AHEAD = "go-ahead-1"  # the server says when a push has its place: nothing but the header is sent before
FEATURES = ("blobs-1", "client-1", "codecs-1", GO_AHEAD, *(("zstd-1",) if find_spec("zstandard") else ()))

# One place for all time-outs, in seconds.
HEARTBEAT_S = 1.5  # between messages on the control connection
LOST_AFTER_S = 4.5  # without a byte from the other side
WELCOME_WITHIN_S = 10.0  # from dialling to the hub's Welcome
BACKOFF_S = (0.2, 2.0)  # between attempts to connect, with jitter
REFUSED_S = 5.0  # a site that the server has refused waits so long
PROBE_AGAIN_S = 30.0  # a failure that looks like the last one is looked into again at the earliest after this
TCP_WITHIN_S = 1.5  # for a connection where nothing answered before: short, so that an outage's end is seen in 2 s
HANDSHAKE_WITHIN_S = 10.0  # from a TCP connection to the first frame after TLS, on the hub
KEEPALIVE_S = 60.0  # pings on idle connections: far under the 240 s after which cloud NATs forget
ADOPT_S = 60.0  # a job process waits so long for its agent to come back
SUBMIT_WITHIN_S = 24 * 3600.0  # from a job's submission to the last byte of its bundle
STOP_S = 3.0  # between SIGTERM and SIGKILL of a process group

BUSY_MARK = "busy"  # in a site's state: touched while it has a job

# Tasks so named are the runtime's own: the Client API hands none to a script, no filter and no codec touches them. But
# they are done in the script's process, which may answer anything: a site with filters for results does none.
OWN_TASK = "fedspan."
AGGREGATE = OWN_TASK + "aggregate"
OWN_TASKS = frozenset({AGGREGATE})

INLINE_LIMIT = 64 * 1024  # blobs up to this travel in messages and lie in the database
# Plain data beside the model of one task or result, as JSON: with the rest of its message under the 4 MiB that gRPC
# takes by default, as older sites do, and little enough for a slow link not to be taken for a dead one meanwhile.
PLAIN_LIMIT = 3 * 1024 * 1024
LEAF = 4 * 1024 * 1024  # fixed by the protocol
CHUNK = 1024 * 1024  # on the wire
BULK_STREAMS = 4  # at once, on the hub, unless its local/resources.yml has `bulk_streams`
SPARE_CALLS = 32  # on the hub, besides two for each site and the bulk streams
LOW_WAITING = 8  # messages of low priority (logs) that wait on an agent; the rest stays in files
CALLS_EACH = 24  # at once of one participant

_JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
_TASK_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,79}/-?\d{1,9}\.\d{1,9}/[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")


def new_job_id(name: str) -> str:
    """A job's id, readable and unique: the slug of its name and eight random hex digits."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "job"
    return f"{slug}-{secrets.token_hex(4)}"


def is_job_id(text: str) -> bool:
    """Job ids become folder names, so nothing else is let through."""
    return _JOB_ID.fullmatch(text) is not None


def is_task_id(text: str) -> bool:
    """JOB/ROUND.INDEX/SITE."""
    return _TASK_ID.fullmatch(text) is not None


def is_participant_name(text: str) -> bool:
    """Names become file names too."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def prelude(boundary: int) -> int:
    """The round under which calls are journalled that a workflow makes outside of rounds, after a finished round
    (-1: none yet)."""
    return -11 - boundary


def now_ms() -> int:
    return int(time.time() * 1000)


def iso(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
