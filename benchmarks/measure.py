"""What the benchmarks share: memory by kind, limits on it, percentiles, the table and the line of JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fl_runtime"))

import raw
from federation import Federation, until

_EVERY_S = 0.25
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a run that is ended takes its federation along


def memory_mb(pids: Sequence[int]) -> tuple[float, float]:
    """(Pss_Anon + Pss_Shmem, Pss_File) of processes, in MB. Changed pages of a private map of a file are anonymous."""
    found = {"Pss_Anon:": 0, "Pss_Shmem:": 0, "Pss_File:": 0}
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                key, _, rest = line.partition(" ")
                if key in found:
                    found[key] += int(rest.split()[0])
    return (found["Pss_Anon:"] + found["Pss_Shmem:"]) * 1024 / 1e6, found["Pss_File:"] * 1024 / 1e6


def tree(pid: int) -> list[int]:
    """A process and what it has started."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


class Peaks(threading.Thread):
    """Samples the memory of some process trees, four times a second."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        super().__init__(daemon=True)
        self._roots = dict(roots)
        self.anon = dict.fromkeys(roots, 0.0)
        self.file = dict.fromkeys(roots, 0.0)
        self.parts: dict[str, dict[str, float]] = {name: {} for name in roots}  # peaks of each process by itself
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(_EVERY_S):
            for name, root in self._roots.items():
                anon = file = 0.0
                for pid in tree(root):
                    one = memory_mb([pid])
                    anon, file = anon + one[0], file + one[1]
                    what = _called(pid)
                    self.parts[name][what] = max(self.parts[name].get(what, 0.0), one[0])
                self.anon[name] = max(self.anon[name], anon)
                self.file[name] = max(self.file[name], file)

    def __enter__(self) -> Peaks:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def _called(pid: int) -> str:
    """What a process of the runtime does."""
    with contextlib.suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for mark, name in (
            ("fl_runtime serve", "runtime"),
            ("workflow.process", "workflow"),
            ("workshop", "filters"),
            ("keeper.py", "keeper"),
            ("train.py", "script"),
        ):
            if mark in line:
                return name
    return "other"


@contextlib.contextmanager
def limited(limit_mb: float | None, pid: int) -> Iterator[dict[str, float]]:
    """Hold a process and what it starts below a limit of memory, in a control group (root only).

    The kernel counts file pages as well; it drops those before it refuses memory, so this is harder than a limit on
    anonymous memory. The map that is yielded has `peak_mb` (with file pages) and `killed` in the end.
    """
    told: dict[str, float] = {}
    if limit_mb is None:
        yield told
        return
    first = Path("/sys/fs/cgroup/memory")  # version 1
    top, names = (first, ("limit_in_bytes", "max_usage_in_bytes", "oom_control"))
    if not first.is_dir():
        top, names = Path("/sys/fs/cgroup"), ("max", "peak", "events")
    group = top / f"fedspan-benchmark-{os.getpid()}"
    group.mkdir()
    try:
        (group / f"memory.{names[0]}").write_text(str(int(limit_mb * 1e6)))
        (group / "cgroup.procs").write_text(str(pid))
        yield told
        told["peak_mb"] = int((group / f"memory.{names[1]}").read_text()) / 1e6
        lines = (group / f"memory.{names[2]}").read_text().splitlines()
        told["killed"] = sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            (top / "cgroup.procs").write_text(left)
        group.rmdir()


def roots(fed: Federation) -> dict[str, int]:
    """Name -> process id of the server and the sites."""
    found = {}
    for name, process in [("server", fed.server), *fed.sites.items()]:
        assert process.process is not None
        found[name] = process.process.pid
    return found


def cpu_s(fed: Federation) -> float:
    """Processor seconds of all processes of a federation, those that have ended and were waited for included."""
    total = 0.0
    for root in roots(fed).values():
        for pid in tree(root):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def until_settled(fed: Federation, job: str) -> None:
    """Wait until every process of the job has ended."""
    with fed.session() as session:
        until(lambda: session.show(job)["settled"], 30, f"{job} has settled")


def round_ends(fed: Federation, job: str) -> list[float]:
    """When each round was committed: a round lasts from one commit to the next, the commit itself included."""
    with contextlib.closing(sqlite3.connect(f"file:{fed.server.state}/hub.db?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT at FROM boundaries WHERE job = ? ORDER BY round", (job,))]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def raw_mb_s(fed: Federation, mib: int) -> float:
    """The baseline of bulk: MB/s, the better of sync and aio."""
    return max(raw.throughput(fed.server.kit, fed.sites["site-1"].kit, mib).values())


def report(rows: Sequence[Sequence[object]], result: Mapping[str, Any], only_json: bool) -> None:
    """A table (its first row is the head) and the result as one line of JSON, which is the last of the output."""
    if not only_json:
        texts = [[_text(cell) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
        for row in texts:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {when} UTC")
    print(json.dumps(result))


def _text(cell: object) -> str:
    return (
        f"{cell:.3g}"
        if isinstance(cell, float) and abs(cell) < 100
        else f"{cell:.0f}"
        if isinstance(cell, float)
        else str(cell)
    )
