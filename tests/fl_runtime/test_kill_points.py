"""Killed between any two steps of a write or a deletion: nothing that was acknowledged is lost, nothing is left.

A child process runs a small piece of the real store; its system calls and commits are counted, and at the n-th it
kills itself with SIGKILL, before or after the call. Then the same folder is opened again and looked at. (What a power
failure would lose in addition is a matter of the order of the syncs, which the last test looks at.)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import json, os, signal, sys
from pathlib import Path
from fl_runtime.blobs import BlobStore, of_bytes
from fl_runtime.db import Sqlite
from fl_runtime.hub.store import open_store
from fl_runtime.hub.state import OPEN, Call, Job, Task

root, piece = Path(sys.argv[1]), sys.argv[2]
A, B = b"a" * 200_000, b"b" * 300_000

def counted(kill_at, trace):
    state = [0]
    def wrap(where, name, label):
        original = getattr(where, name)
        def call(*args, **options):
            what = label(args) if callable(label) else label
            if what is None:
                return original(*args, **options)
            for moment in ("before", "after"):
                if moment == "after":
                    result = original(*args, **options)
                    trace.append(what)
                if state[0] == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                state[0] += 1
            return result
        setattr(where, name, call)
    def folder_or_file(args):
        return "fsync-folder" if os.path.isdir(f"/proc/self/fd/{args[0]}") else "fsync-file"
    wrap(os, "fdatasync", "fdatasync")
    wrap(os, "fsync", folder_or_file)
    wrap(os, "rename", "rename")
    wrap(os, "unlink", "unlink")
    wrap(os, "pwrite", "write")
    wrap(Sqlite, "_commit", "commit")
    return state

def open_all(folder):
    store = open_store(folder)
    return store, BlobStore(folder, store.db)

def prepare(folder):
    store, blobs = open_all(folder)
    key = ("job", 0, 0)
    store.add_job(Job("job", "n", {"workflow": {}}, "ana", b"", b"", b"", b"", 0, "RUNNING"))
    store.open_call(Call(*key, "train", ("a",), "", {}, None, {}), [Task("task", *key, "a", 1, OPEN)])
    with store.tx():
        blobs.register(*blobs.stage_bytes(B), "job:job:old")
    store.close()

def write(store, blobs):
    staged = blobs.stage_bytes(A)
    with store.tx():
        store.answer("task", {}, blobs.register(*staged, "job:job:task:task"))

def receive(store, blobs):
    manifest = of_bytes(A)
    incoming = blobs.receive(manifest, "job:job:task:task")
    if incoming is not None:
        incoming.writer(0, 1).take(A)
        blobs.finish(incoming)
    with store.tx():
        store.answer("task", {}, manifest.id)

def delete(store, blobs):
    blobs.drop_refs("job:job:old")
    blobs.collect()

def look(folder, acknowledged):
    store, blobs = open_all(folder)
    task = store.task("task")
    problems = []
    if acknowledged and piece != "delete" and task.state != "answered":
        problems.append("an acknowledged result is lost")
    if task.state == "answered" and blobs.read(task.result) != A:
        problems.append("the result is not what was sent")
    if piece != "delete" and blobs.read(of_bytes(B).id) != B:
        problems.append("another blob is damaged")
    if acknowledged and piece == "delete" and blobs.has(of_bytes(B).id):
        problems.append("what was deleted is back")
    named = {row["id"].hex() for row in store.db.all("SELECT id FROM blobs WHERE inline IS NULL")}
    files = {path.name for path in (folder / "blobs").iterdir()}
    if named - files:
        problems.append("a row has no file")
    if files - named:
        problems.append("a file has no row")
    if any((folder / "spool").iterdir()):
        problems.append("something is left in the spool")
    coming = {row["id"].hex() for row in store.db.all("SELECT id FROM incoming")}
    if {path.name for path in (folder / "incoming").iterdir()} - coming:
        problems.append("something that nobody sends is left")
    {"write": write, "receive": receive, "delete": delete}[piece](store, blobs)  # it goes on without a hand
    if piece != "delete" and blobs.read(store.task("task").result) != A:
        problems.append("it can't be done again")
    store.close()
    return problems

found, points, trace = [], 0, []
for kill_at in range(400):
    folder = root / f"{piece}-{kill_at}"
    folder.mkdir()
    prepare(folder)
    read, written = os.pipe()
    child = os.fork()
    if child == 0:
        store, blobs = open_all(folder)
        steps = []
        counted(kill_at, steps)
        {"write": write, "receive": receive, "delete": delete}[piece](store, blobs)
        os.write(written, json.dumps(["acknowledged", *steps]).encode())
        os._exit(0)
    os.close(written)
    _, status = os.waitpid(child, 0)
    said = os.read(read, 65536)
    os.close(read)
    found += [f"{piece} killed at {kill_at}: {problem}" for problem in look(folder, bool(said))]
    if os.WIFEXITED(status):
        trace = json.loads(said)[1:] if said else ["the child failed"]
        break
    points += 1
print(json.dumps({"problems": found, "points": points, "trace": trace}))
"""


def run(tmp_path: Path, piece: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), piece], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("piece", ["write", "receive", "delete"])
def test_killed_between_any_two_steps_nothing_is_lost_and_nothing_is_left(tmp_path: Path, piece: str) -> None:
    found = run(tmp_path, piece)
    assert found["problems"] == []
    assert found["points"] >= (2 if piece == "delete" else 8), found


def test_a_result_is_synced_and_in_its_folder_before_the_row_is_committed(tmp_path: Path) -> None:
    """Write, sync the file, rename, sync the folder, commit; only then anybody is told."""
    trace = run(tmp_path, "write")["trace"]
    order = [trace.index(step) for step in ("rename", "fsync-folder", "commit")]
    assert order == sorted(order), trace
    assert any(step in ("fdatasync", "fsync-file") for step in trace[: order[0]]), trace
