"""Memory of the server with its job's process, algorithm by algorithm: none keeps a model there.

    python benchmarks/algorithms.py [--model-mib 192] [--sites 4] [--only krum fedopt-adam ...] [--json]

Real processes, mutual TLS, two rounds of each algorithm (and the tasks that belong to it). Memory is the peak of
Pss_Anon + Pss_Shmem, file pages are told apart. The baseline of the same run is a bare gRPC server with mutual TLS that
two clients move bulk through: its peak of the same kind of memory, and its MB/s.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import raw
import rounds
from measure import Peaks, memory_mb, report, roots, until_settled

from federation import Federation, federation  # isort: skip - measure puts it on the path

SCRIPT = """
import fl_runtime.client as flare
flare.init()
site = int(flare.get_site_name().rpartition("-")[2])
while flare.is_running():
    model = flare.receive()
    if flare.is_evaluate():
        flare.send(flare.FLModel(metrics={"loss": 1.0 / site}))
        continue
    for value in model.params.values():
        value += site
    control = {}
    if flare.get_config()["control"]:
        control = {"c_delta." + name: value for name, value in model.params.items()}
    flare.send(flare.FLModel(params=model.params, optimizer_params=control or None, metrics={"loss": 1.0 / site}))
    del model, control, value  # else they live beside the next ones
"""


def _optimizer(kind: str) -> dict[str, Any]:
    return {"type": "fedopt", "optimizer": {"type": kind, "lr": 0.1}}


CASES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedavg, best, evaluation": {"best": {"metric": "loss", "mode": "min"}, "final_evaluation": True},
    "fedprox": {"type": "fedprox"},
    "fedavgm": {"type": "fedavgm"},
    "fedopt-sgd": _optimizer("sgd"),
    "fedopt-adam": _optimizer("adam"),
    "fedopt-yogi": _optimizer("yogi"),
    "fedopt-adagrad": _optimizer("adagrad"),
    "scaffold": {"type": "scaffold"},
    "median": {"aggregator": "median"},
    "trimmed mean": {"aggregator": {"type": "trimmed_mean", "trim": 0.25}},
    "krum": {"aggregator": {"type": "krum", "byzantine": 1}},
    "cyclic": {"type": "cyclic"},
    "cross-site": {"type": "cross_site"},
    "evaluate": {"type": "evaluate"},
    "at a site": {"aggregate_at": "site-1"},
    "delta, 8 bit": {"codecs": ["delta", "quantize8"]},
    "zstd": {"codecs": ["zstd"]},
    "filter on the server": {"filters": {"server": {"results": [{"type": "clip_value", "limit": 1.0}]}}},
}


def measure(fed: Federation, name: str, mib: float) -> dict[str, Any]:
    case = dict(CASES[name])
    document = {key: case.pop(key) for key in ("codecs", "filters") if key in case}
    model = {"tensors": rounds.model_of(mib), "init": "uniform"}
    folder = fed.job(
        "algorithm",
        SCRIPT,
        config={"control": case.get("type") == "scaffold"},
        workflow={"type": "fedavg", "rounds": 2, "model": model, **case},
        **document,
    )
    begun = time.monotonic()
    with fed.session() as session, Peaks(roots(fed)) as peaks:
        job = session.submit(folder)
        session.wait(job, 900)
        seconds = time.monotonic() - begun
        until_settled(fed, job)
        session.delete(job)
    sites = max(value for key, value in peaks.anon.items() if key != "server")
    return {
        "server_anon_mb": round(peaks.anon["server"], 1),
        "server_file_mb": round(peaks.file["server"], 1),
        "site_anon_mb": round(sites, 1),
        "seconds": round(seconds, 2),
        "parts": {key: round(value) for key, value in peaks.parts["server"].items()},
    }


def baseline(fed: Federation, mib: int) -> tuple[float, float]:
    """(peak of anonymous MB, MB/s) of a bare server."""
    peak, over = [0.0], threading.Event()

    def watch(pid: int) -> None:
        while True:  # at least once: a small transfer is over before the next
            peak[0] = max(peak[0], memory_mb([pid])[0])
            if over.wait(0.1):
                return

    rates = raw.throughput(fed.server.kit, fed.sites["site-1"].kit, mib, watch=watch)
    over.set()
    return peak[0], max(rates.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-mib", type=float, default=192)
    parser.add_argument("--sites", type=int, default=4, help="Krum needs at least 4")
    parser.add_argument("--raw-mib", type=int, default=512)
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--json", action="store_true", help="print only the last line")
    options = parser.parse_args()
    rows: list[tuple[object, ...]] = [("algorithm", "server, anonymous MB", "file pages", "a site, MB", "s", "")]
    result: dict[str, Any] = {"model_mib": options.model_mib, "sites": options.sites, "algorithms": {}}
    with tempfile.TemporaryDirectory(prefix="fedspan-bench-") as root, federation(Path(root), options.sites) as fed:
        for name in options.only:
            found = measure(fed, name, options.model_mib)
            parts = found.pop("parts")
            rows.append(
                (name, *(found[key] for key in ("server_anon_mb", "server_file_mb", "site_anon_mb", "seconds")), parts)
            )
            result["algorithms"][name] = found
        peak, rate = baseline(fed, options.raw_mib)
    result["server_anon_mb"] = max(found["server_anon_mb"] for found in result["algorithms"].values())
    result["raw_server_anon_mb"], result["raw_mb_s"] = round(peak, 1), round(rate, 1)
    rows.append(("raw gRPC + mTLS server", peak, "", "", "", f"{rate:.0f} MB/s with two clients"))
    report(rows, result, options.json)


if __name__ == "__main__":
    main()
