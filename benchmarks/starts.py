"""What it takes until something happens: start, first task, import; and what the runtime needs when it does nothing.

    python benchmarks/starts.py [--runs 5] [--idle 5] [--no-torch] [--json]

- from the start of a server and two sites, all at once, until both are registered;
- from `submit` until a site's script has its first task: a numpy script, and one that imports torch, whose import is
  measured there and stands beside it;
- memory (Pss_Anon + Pss_Shmem) of the server and of a site's agent after some idle seconds, and Pss with file pages;
- `import fl_runtime.client` in a fresh interpreter, what numpy costs taken off.

The baseline of the same run: a bare gRPC server with mutual TLS and two bare clients, from their start until both have
made a call; and that server's memory. Medians of the runs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import raw
from measure import memory_mb, report, roots, tree

from federation import Federation, federation, until  # isort: skip - measure puts it on the path

SCRIPT = """
import time
begun = time.time()
import {library}
took = time.time() - begun
import fl_runtime.client as flare
flare.init()
while flare.is_running():
    model = flare.receive()
    flare.send(flare.FLModel(params=model.params, metrics={{"at": time.time(), "import_s": took}}))
"""
IMPORT = """
import time
begun = time.perf_counter()
import numpy
middle = time.perf_counter()
import fl_runtime.client
print((time.perf_counter() - middle) * 1000, (middle - begun) * 1000, "grpc" in __import__("sys").modules)
"""


def registration() -> float:
    """Seconds from the start of all processes until both sites are registered."""
    with (
        tempfile.TemporaryDirectory(prefix="fedspan-bench-") as root,
        federation(Path(root), 2, start=False) as fed,
    ):
        begun = time.monotonic()
        fed.start()
        return time.monotonic() - begun


def first_task(fed: Federation, library: str) -> tuple[float, float]:
    """(seconds from submit to the first site's first task, that site's seconds for importing the library)."""
    settings = {"type": "fedavg", "rounds": 1, "model": {"tensors": {"w": [256]}}}
    folder = fed.job(f"first-{library}", SCRIPT.format(library=library), workflow=settings)
    with fed.session() as session:
        session.jobs()  # connected
        begun = time.time()
        view = session.wait(session.submit(folder), 120)
    first = min(view["history"][0]["sites"].values(), key=lambda site: site["at"])
    return first["at"] - begun, first["import_s"]


def idle(fed: Federation, seconds: float) -> dict[str, float]:
    time.sleep(seconds)
    found = {name: memory_mb(tree(pid)) for name, pid in roots(fed).items()}
    sites = [found[name] for name in found if name != "server"]
    return {
        "server_anon_mb": found["server"][0],
        "server_pss_mb": sum(found["server"]),
        "agent_anon_mb": max(anon for anon, _ in sites),
        "agent_pss_mb": max(anon + file for anon, file in sites),
    }


def imported() -> tuple[float, float]:
    """(milliseconds of the client's import above numpy, of numpy's)."""
    told = subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True).stdout.split()
    assert told[2] == "False", "the client imports gRPC"
    return float(told[0]), float(told[1])


def bare(fed: Federation) -> tuple[float, float]:
    """(seconds until a bare server and two bare clients have talked, the server's anonymous MB)."""
    begun = time.monotonic()
    with raw.server(fed.server.kit) as (port, pid), raw.askers(fed.sites["site-1"].kit, port, 2):
        return time.monotonic() - begun, memory_mb([pid])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--idle", type=float, default=5.0, help="seconds before idle memory is read")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--json", action="store_true", help="print only the last line")
    options = parser.parse_args()
    runs = range(options.runs)
    started = [registration() for _ in runs]
    imports = [imported() for _ in runs]
    with tempfile.TemporaryDirectory(prefix="fedspan-bench-") as root, federation(Path(root), 2) as fed:
        until(lambda: all(fed.sites[name].status().get("connected") for name in fed.sites), 20, "agents are connected")
        memory = idle(fed, options.idle)
        tasks = {library: [first_task(fed, library) for _ in runs] for library in _libraries(options.no_torch)}
        plain = [bare(fed) for _ in runs]
    result: dict[str, Any] = {
        "registered_s": round(statistics.median(started), 3),
        "first_task_s": round(statistics.median(at for at, _ in tasks["numpy"]), 3),
        **{key: round(value, 1) for key, value in memory.items()},
        "client_import_ms": round(statistics.median(own for own, _ in imports), 1),
        "numpy_import_ms": round(statistics.median(numpy for _, numpy in imports), 1),
        "raw_start_s": round(statistics.median(seconds for seconds, _ in plain), 3),
        "raw_server_anon_mb": round(statistics.median(mb for _, mb in plain), 1),
    }
    if "torch" in tasks:
        result["first_task_torch_s"] = round(statistics.median(at for at, _ in tasks["torch"]), 3)
        result["first_task_torch_above_import_s"] = round(
            statistics.median(at - took for at, took in tasks["torch"]), 3
        )
    notes = {
        "registered_s": f"{min(started):.2f} to {max(started):.2f}",
        "first_task_torch_above_import_s": "its import of torch, measured in the script, taken off",
        "server_pss_mb": "with its share of file pages",
        "agent_pss_mb": "with its share of file pages",
        "raw_start_s": "bare gRPC + mTLS: a server, two clients, a call of each",
        "raw_server_anon_mb": "bare gRPC + mTLS",
    }
    rows = [("what", "median", f"{options.runs} runs")]
    rows += [(key, value, notes.get(key, "")) for key, value in result.items()]
    report(rows, result, options.json)


def _libraries(no_torch: bool) -> tuple[str, ...]:
    return ("numpy",) if no_torch else ("numpy", "torch")


if __name__ == "__main__":
    main()
