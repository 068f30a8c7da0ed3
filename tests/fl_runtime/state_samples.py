"""A job and a call, for tests of what the server keeps."""

from __future__ import annotations

from fl_runtime.hub.state import Call, Job, Task


def job(name: str = "job-1", state: str = "QUEUED") -> Job:
    return Job(name, "n", {"workflow": {}}, "ana", b"e", b"s", b"c", b"d" * 32, 9, state)


def call(round_: int = 0, index: int = 0) -> tuple[Call, list[Task]]:
    made = Call("job-1", round_, index, "train", ("a", "b"), "digest", {"k": 1}, None, {"min": 2})
    return made, [
        Task(f"job-1/{round_}.{index}/{site}", "job-1", round_, index, site, 1, "open") for site in ("a", "b")
    ]
