"""Logs and metrics of job processes: each once, in order, live, and never in the way of the work."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from federation import Federation, until
from safetensors.numpy import load_file

from fl_runtime import tail
from fl_runtime.hub.logs import LogBook
from fl_runtime.tail import Bucket, Piece, Tail

JOB = "job-20260101-aaaaaa"


def shipped(tail_: Tail, book: LogBook, bucket: Bucket | None = None, limit: int = 10**9) -> None:
    left = [limit]

    def send(piece: Piece) -> bool:
        left[0] -= 1
        return left[0] >= 0 and book.append(JOB, "site-1", piece.at, piece.data, piece.next)

    tail_.ship(send, bucket or Bucket(10**12, 10**12))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LogBook:
    monkeypatch.setattr("fl_runtime.hub.logs.is_job_id", lambda job: job == JOB)
    return LogBook(tmp_path / "logs")


def kept(book: LogBook) -> bytes:
    return (book.folder / JOB / "site-1.log").read_bytes()


def test_a_bucket_lets_through_its_burst_and_then_its_rate() -> None:
    now = [0.0]
    bucket = Bucket(100, 250, lambda: now[0])
    assert [bucket.take(100) for _ in range(3)] == [True, True, False]
    now[0] = 0.5
    assert bucket.take(100)
    now[0] = 100.0
    assert [bucket.take(100) for _ in range(3)] == [True, True, False]


def test_nothing_is_sent_before_the_receiver_said_where_to_go_on(source: Path, book: LogBook) -> None:
    source.write_bytes(b"one\ntwo\n")
    tail_ = Tail(source)
    shipped(tail_, book)
    assert book.have(JOB, "site-1") == 0
    tail_.resume(0)
    shipped(tail_, book)
    assert kept(book) == b"one\ntwo\n"


def test_a_log_arrives_once_whatever_breaks_between(source: Path, book: LogBook) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(20_000))
    tail_ = Tail(source)
    for step in range(1, 11):
        source.write_bytes(lines[: len(lines) * step // 10])
        tail_.resume(book.have(JOB, "site-1") if step % 3 else 0)  # at times everything again
        shipped(tail_, book, limit=step * 2)
        tail_.pause()
    tail_.resume(book.have(JOB, "site-1"))
    shipped(tail_, book)
    assert kept(book) == lines


def test_what_is_too_much_loses_its_middle_and_says_how_many_lines(
    source: Path, book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "BACKLOG", 100_000)
    monkeypatch.setattr(tail, "KEEP", 10_000)
    source.write_bytes(b"".join(b"%07d\n" % number for number in range(1000)))
    tail_ = Tail(source)
    tail_.resume(0)
    shipped(tail_, book)
    with open(source, "ab") as file:
        file.write(b"".join(b"%07d\n" % number for number in range(1000, 50_000)))
    shipped(tail_, book)
    text = kept(book).decode()
    dropped = re.search(r"\[fedspan: (\d+) lines dropped here \(\d+ bytes\)", text)
    assert dropped is not None
    numbers = [int(line) for line in text.splitlines() if not line.startswith("[")]
    assert numbers[:1000] == list(range(1000))
    assert numbers[-1] == 49_999
    assert len(numbers) + int(dropped[1]) == 50_000
    assert numbers[1000:] == list(range(numbers[1000], 50_000))


def test_a_line_that_is_cut_by_a_drop_does_not_run_into_the_note(
    source: Path, book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "BACKLOG", 1000)
    monkeypatch.setattr(tail, "KEEP", 100)
    source.write_bytes(b"no end of line")
    tail_ = Tail(source)
    tail_.resume(0)
    shipped(tail_, book)
    with open(source, "ab") as file:
        file.write(b"x" * 5000 + b"\nlast\n")
    shipped(tail_, book)
    first, note, *rest = kept(book).decode().splitlines()
    assert first == "no end of line"
    assert note.startswith("[fedspan: ")
    assert rest[-1] == "last"


def test_a_flood_without_a_connection_fills_no_disk_and_is_counted(source: Path, book: LogBook) -> None:
    tail_ = Tail(source)
    tail_.resume(0)
    line = b"x" * 127 + b"\n"
    source.write_bytes(b"first\n")
    shipped(tail_, book)
    tail_.pause()
    count = 0
    for _ in range(6):  # 6 x 10 MiB
        with open(source, "ab") as file:
            file.write(line * 81_920)
        count += 81_920
        shipped(tail_, book)
    assert source.stat().st_size > 60 * 1024 * 1024
    assert source.stat().st_blocks * 512 < 16 * 1024 * 1024
    tail_.resume(book.have(JOB, "site-1"))
    shipped(tail_, book)
    text = kept(book).decode()
    dropped = re.search(r"(\d+) lines dropped", text)
    assert dropped is not None
    assert int(dropped[1]) + text.count("x" * 127) == count
    again = Tail(source)  # the agent was killed: it does not know any more how many lines the hole held
    again.resume(6)
    other = LogBook(book.folder.parent / "other")
    other.append(JOB, "site-1", 0, b"first\n")
    shipped(again, other)
    assert "[fedspan: at least 8194 lines dropped here" in (other.folder / JOB / "site-1.log").read_text()


def test_a_log_that_was_cut_off_between_its_two_files_holds_nothing_twice(source: Path, book: LogBook) -> None:
    book.append(JOB, "site-1", 0, b"one\n")
    with open(book.folder / JOB / "site-1.log", "ab") as file:
        file.write(b"two\n")  # killed before the position was noted
    again = LogBook(book.folder)
    assert again.have(JOB, "site-1") == 4
    assert again.append(JOB, "site-1", 4, b"two\n")
    assert kept(again) == b"one\ntwo\n"
    assert not again.append(JOB, "site-1", 9, b"gap")
    assert again.append(JOB, "site-1", 0, b"one\n")
    assert kept(again) == b"one\ntwo\n"


# --- with real processes

FLOOD = """
import os, threading, time
import fl_runtime.client as flare
flare.init()
site = flare.get_site_name()
print("begins", flush=True)
def flood():
    line = (b"x" * 999 + b"\\n") * 1000
    while True:
        os.write(1, line)          # as fast as it goes: 1 MB at a time
        time.sleep(0.01)           # about 100 MB/s
if site == "site-1":
    threading.Thread(target=flood, daemon=True).start()
while flare.is_running():
    model = flare.receive()
    flare.log("round", model.current_round, global_step=model.current_round)
    time.sleep(0.3)
    flare.send(flare.FLModel(params={"w": model.params["w"] + 1}))
"""


def test_a_script_that_prints_without_end_delays_neither_tasks_nor_heartbeats(running: Federation) -> None:
    settings = {"type": "fedavg", "rounds": 10, "model": {"tensors": {"w": [4]}}}
    silent = running.job("silent", FLOOD.replace("flood, daemon", "int, daemon"), workflow={**settings, "rounds": 4})
    folder = running.job("flood", FLOOD, workflow=settings)
    with running.session() as session:
        calm = [entry["seconds"] for entry in session.wait(session.submit(silent), 120)["history"]]
        job = session.submit(folder)
        view = session.wait(job, 120)
        flooded = [entry["seconds"] for entry in view["history"]]
        assert len(flooded) == 10
        assert sorted(flooded)[-2] < 1.0 + 3 * max(calm), (calm, flooded)  # 0.3 s of it are the script's sleep
        model = load_file(session.download(job, running.root / "results") / "model.safetensors")
    assert np.array_equal(model["w"], np.full(4, 10.0, np.float32))
    text = (running.root / f"state/server/logs/{job}/site-1.log").read_text()
    dropped = [int(number) for number in re.findall(r"\[fedspan: (\d+) lines dropped here", text)]
    assert sum(dropped) > 20_000, dropped
    assert text.startswith(("begins\n", "[fedspan: "))  # the flood may come before the first look
    assert len(text) < 16 * 1024 * 1024
    other = (running.root / f"state/server/logs/{job}/site-2.log").read_text()
    assert other == "begins\n"
    assert "is lost" not in running.server.text()


METRICS = """
import time
import fl_runtime.client as flare
flare.init()
step = 0
while flare.is_running():
    model = flare.receive()
    for _ in range(50):
        flare.log("step", step, global_step=step)
        step += 1
        time.sleep(0.004)
    flare.send(flare.FLModel(params={"w": model.params["w"] + 1}))
"""


def test_metrics_are_seen_while_the_job_runs_and_each_once_after_kills(fresh: Federation) -> None:
    settings = {"type": "fedavg", "rounds": 8, "model": {"tensors": {"w": [4]}}}
    folder = fresh.job("metrics", METRICS, workflow=settings)
    with fresh.session() as session:
        job = session.submit(folder)
        until(lambda: len(session.show(job)["metrics"]) > 100, what="metrics of the running job")
        fresh.server.kill()
        time.sleep(0.3)
        fresh.server.start()
        until(lambda: _round(session, job) >= 4)
        fresh.sites["site-2"].kill()
        fresh.sites["site-2"].start()
        view = session.wait(job, 120)
    for site in fresh.sites:
        steps = [row["step"] for row in view["metrics"] if row["site"] == site and row["key"] == "step"]
        assert steps == list(range(len(steps))), site
        assert len(steps) == 400, site


def _round(session, job: str) -> int:
    from fl_runtime.errors import FlError

    try:
        return int(session.show(job)["round"])
    except FlError:
        return -1
