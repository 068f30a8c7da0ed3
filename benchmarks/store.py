"""Commits of the server's state: single and in groups, SQLite and (where it is installed) PostgreSQL.

    python benchmarks/store.py [--seconds 1] [--json]

Each figure is operations a second on a folder beside this machine's temporary files: `commits` are transactions of one
row (a task is answered), `events` one event each by itself, `grouped` events as the server writes them: 50 ms share a
commit. `raw_fsync` is the same disk's fdatasync of one 4 KiB write: no durable commit can be faster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/fl_runtime"))

from postgres_server import binaries, postgres

from fl_runtime.hub.state import OPEN, Call, Task
from fl_runtime.hub.store import open_store


def rate(seconds: float, action: Callable[[int], object]) -> float:
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        action(count)
        count += 1
    return round(count / seconds, 1)


def raw_fsync(folder: Path, seconds: float) -> float:
    fd = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT, 0o600)

    def write(number: int) -> None:
        os.pwrite(fd, b"x" * 4096, 4096 * (number % 256))
        os.fdatasync(fd)

    try:
        return rate(seconds, write)
    finally:
        os.close(fd)


def measure(folder: Path, url: str | None, seconds: float) -> dict[str, float]:
    store = open_store(folder, url)
    key = ("job", 0, 0)
    store.open_call(Call(*key, "train", ("a",), "", {}, None, {}), [Task("task", *key, "a", 1, OPEN)])

    def event(_: int) -> None:
        with store.tx():
            store.add_event("job", {"event": "e"})

    found = {
        "commits": rate(seconds, lambda n: store.answer("task", {"n": n}, None)),
        "events": rate(seconds, event),
    }
    begun, count = time.monotonic(), int(found["commits"] * 20)
    for number in range(count):
        store.add_event("job", {"event": "e", "n": number})
    store.events("job", 1 << 40)  # waits for the commit
    found["grouped"] = round(count / (time.monotonic() - begun), 1)
    store.close()
    return found


@contextlib.contextmanager
def database() -> Iterator[str | None]:
    try:
        import psycopg  # noqa: F401 - is the extra installed?
    except ImportError:
        yield None
        return
    if binaries() is None:
        yield None
        return
    with postgres(fsync=True) as server:
        yield server.new_database("benchmark")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, database() as url:
        folders = [Path(name) / "sqlite", Path(name) / "postgres"]
        for folder in folders:
            folder.mkdir()
        found = {"raw_fsync": raw_fsync(Path(name), options.seconds)}
        found["sqlite"] = measure(folders[0], None, options.seconds)
        found["postgres"] = measure(folders[1], url, options.seconds) if url else None
    if not options.json:
        print(f"raw fdatasync      {found['raw_fsync']:10.1f}/s")
        for kind in ("sqlite", "postgres"):
            for what, figure in (found[kind] or {"not installed": 0}).items():
                print(f"{kind:9} {what:10}{figure:10.1f}/s")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
