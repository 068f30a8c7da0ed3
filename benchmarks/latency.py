"""How fast small things are: rounds of a 1 KB model, and small calls while every site moves bulk.

    python benchmarks/latency.py [--sites 2 8 32] [--rounds 30] [--bulk-sites 8] [--bulk-mib 128] [--json]

A round goes from one committed model to the next: a task to every site, a script's answer from each, synced to disk on
both sides, aggregated and committed. The small calls are an admin's questions (all jobs), one after the other, while so
many sites receive and send a model; a process of its own asks them.

The baseline of the same run: small unary calls over bare gRPC with mutual TLS, by themselves and while as many bare
clients move bulk.
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
import rounds
from measure import quantile, report

from federation import federation  # isort: skip - measure puts it on the path

KB = 1 / 1024
_AGAIN_S = 0.02


def small_rounds(sites: int, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="fedspan-bench-") as root, federation(Path(root), sites) as fed:
        found = rounds.run(fed, KB, count)
    return {
        "median_ms": found["round_s"] * 1000,
        "p90_ms": quantile(found["all_s"], 0.9) * 1000,
        "cpu_s": found["cpu_s"],
    }


def calls_during_bulk(sites: int, mib: int, count: int) -> dict[str, Any]:
    """Milliseconds of an admin's questions while all sites are busy with a larger model; and the baseline's."""
    with tempfile.TemporaryDirectory(prefix="fedspan-bench-") as root, federation(Path(root), sites) as fed:
        kits = fed.server.kit, fed.sites["site-1"].kit
        settings = {"type": "fedavg", "rounds": 1000, "model": {"tensors": rounds.model_of(mib)}}
        with fed.session() as session:
            job = session.submit(fed.job("bulk", rounds.SCRIPT, workflow=settings))
            while not session.show(job)["history"]:
                time.sleep(0.2)
            begun = len(session.show(job)["history"])
            argv = [sys.executable, str(Path(__file__).resolve()), "--ask", str(fed.admin_kit), str(count)]
            told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            passed = len(session.show(job)["history"]) - begun
            session.abort(job)
        alone = raw.calls(*kits, count=count)
        beside = raw.calls(*kits, count=count, bulk_clients=sites, mib=4096)
    return {"calls": [float(value) for value in told.split()], "passed": passed, "alone": alone, "beside": beside}


def ask(kit: str, count: str) -> None:
    """The process that asks."""
    from fl_runtime.admin import Session

    with Session(kit) as session:
        session.jobs()
        for _ in range(int(count)):
            begun = time.monotonic()
            session.jobs()
            print((time.monotonic() - begun) * 1000)
            time.sleep(_AGAIN_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, nargs="*", default=[2, 8, 32])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--bulk-sites", type=int, default=8, help="0: no calls during bulk")
    parser.add_argument("--bulk-mib", type=int, default=128)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print only the last line")
    parser.add_argument("--ask", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        ask(*options.ask)
        return
    rows: list[tuple[object, ...]] = [("what", "median, ms", "p90, ms", "p99, ms", "")]
    result: dict[str, Any] = {"rounds_ms": {}, "rounds": options.rounds}
    for sites in options.sites:
        found = small_rounds(sites, options.rounds)
        result["rounds_ms"][str(sites)] = {key: round(value, 2) for key, value in found.items()}
        note = f"{found['cpu_s']:.2f} s of processor each, start and end of the job included"
        rows.append((f"round of 1 KB, {sites} sites", found["median_ms"], found["p90_ms"], "", note))
    if options.bulk_sites:
        told = calls_during_bulk(options.bulk_sites, options.bulk_mib, options.calls)
        names = {
            "calls": f"calls while {options.bulk_sites} sites move {options.bulk_mib} MiB",
            "beside": f"raw gRPC + mTLS: calls while {options.bulk_sites} clients move bulk",
            "alone": "raw gRPC + mTLS: calls by themselves",
        }
        for key, name in names.items():
            values = told[key]
            figures = [statistics.median(values), quantile(values, 0.9), quantile(values, 0.99)]
            note = f"{len(values)} calls" + (f", {told['passed']} rounds passed meanwhile" if key == "calls" else "")
            rows.append((name, *figures, note))
            label = {"calls": "call", "beside": "raw_bulk_call", "alone": "raw_call"}[key]
            result[f"{label}_ms"] = dict(zip(("median", "p90", "p99"), (round(one, 3) for one in figures), strict=True))
    report(rows, result, options.json)


if __name__ == "__main__":
    main()
