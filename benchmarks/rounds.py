"""How long a round takes, from one committed model to the next, and how much memory it needs.

    python benchmarks/rounds.py --model-mib 512 --sites 2 --rounds 9 --json

Server and sites are real processes on this machine, over mutual TLS. Each site receives the model, puts random float32
data in its place (not timed: the slowest site's time for it is taken off the round), and sends it. Every acknowledged
blob of a round is synced to disk. The baseline is measured in the same run, before and after: the same kind of bytes
over bare gRPC with mutual TLS (benchmarks/raw.py), two clients at once, nothing on disk; the best of them counts.

Keys of the JSON (last line of the output): round_s (median of the warm rounds), mb_s (bytes to and from all sites in a
round / round_s), raw_mb_s, share, whole_round_s and whole_share (the same with the scripts' own time, for the raw
figure has none such to take off), server_anon_mb and site_anon_mb (peaks of Pss_Anon + Pss_Shmem of the server with its
job's process, and of one site's processes). `--limit-mb 600` holds the server with its job below so much memory, file
pages included (root only): then the keys limit_peak_mb and limit_killed tell how it went.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measure import Peaks, cpu_s, limited, raw_mb_s, report, roots, round_ends, until_settled

from federation import Federation, federation  # isort: skip - measure puts it on the path

SCRIPT = """
import time
import numpy as np
import fl_runtime.client as flare
flare.init()
tensors = None
rng = np.random.default_rng(int(flare.get_site_name().rpartition("-")[2]))
while flare.is_running():
    model = flare.receive()
    begun = time.perf_counter()
    total = float(next(iter(model.params.values()))[0])  # touch it
    if tensors is None:
        tensors = {name: rng.random(value.shape, dtype=np.float32) for name, value in model.params.items()}
    else:
        for name, value in tensors.items():
            value += np.float32(0.5) + model.current_round  # other bytes each round
    spent = time.perf_counter() - begun
    flare.send(flare.FLModel(params=tensors, metrics={"spent": spent}))
"""
WARM_UP = 2
_BULK_MIB = 8  # from here on throughput is what counts


def model_of(mib: float, parts: int | None = None) -> dict[str, list[int]]:
    """Shapes of float32 tensors that make so many MiB."""
    elements = int(mib * 1024 * 1024 / 4)
    parts = parts or max(1, min(8, elements // 65536))
    return {f"w{part}": [elements // parts] for part in range(parts)}


def run(fed: Federation, mib: float, rounds: int, parts: int | None = None, **workflow: Any) -> dict[str, Any]:
    """One job: `all_s` (each warm round), its median, the memory."""
    settings = {"type": "fedavg", "rounds": rounds + WARM_UP, "model": {"tensors": model_of(mib, parts)}, **workflow}
    folder = fed.job("rounds", SCRIPT, workflow=settings)
    before = cpu_s(fed)
    with fed.session() as session, Peaks(roots(fed)) as peaks:
        job = session.submit(folder)
        view = session.wait(job, 3600)
    until_settled(fed, job)
    cpu = cpu_s(fed) - before
    ends = round_ends(fed, job)
    spent = [max(site["spent"] for site in entry["sites"].values()) for entry in view["history"]]
    whole = [ends[number] - ends[number - 1] for number in range(WARM_UP, len(ends))]
    took = [seconds - own for seconds, own in zip(whole, spent[WARM_UP:], strict=True)]
    sites = [name for name in peaks.anon if name != "server"]
    heaviest = max(sites, key=lambda name: peaks.anon[name])
    return {
        "all_s": took,
        "cpu_s": cpu / len(ends),
        "round_s": statistics.median(took),
        "whole_round_s": statistics.median(whole),
        "mb_s": 2 * len(sites) * mib * 1.048576 / statistics.median(took),
        "server_anon_mb": peaks.anon["server"],
        "site_anon_mb": peaks.anon[heaviest],
        "server_file_mb": peaks.file["server"],
        "site_file_mb": peaks.file[heaviest],
        "parts_mb": {
            name: {key: round(value) for key, value in peaks.parts[name].items()} for name in ("server", heaviest)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-mib", type=float, default=64)
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9, help=f"warm rounds; {WARM_UP} more are run before")
    parser.add_argument("--tensors", type=int, help="of how many tensors the model is made")
    parser.add_argument("--raw-mib", type=int, default=1024, help="what each client of the baseline moves each way")
    parser.add_argument("--limit-mb", type=float, help="memory of the server with its job's process")
    parser.add_argument("--json", action="store_true", help="print only the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedspan-bench-") as root, federation(Path(root), options.sites) as fed:
        bulk = options.model_mib >= _BULK_MIB and options.raw_mib
        raw_before = raw_mb_s(fed, options.raw_mib) if bulk else 0.0
        with limited(options.limit_mb, roots(fed)["server"]) as told:
            found = run(fed, options.model_mib, options.rounds, options.tensors)
        raw_best = max(raw_before, raw_mb_s(fed, options.raw_mib)) if bulk else 0.0
    all_s, parts = found.pop("all_s"), found.pop("parts_mb")
    result = {
        "model_mib": options.model_mib,
        "sites": options.sites,
        "rounds": options.rounds,
        **{key: round(value, 4) for key, value in found.items()},
        "raw_mb_s": round(raw_best, 1) if bulk else None,
        "share": round(found["mb_s"] / raw_best, 3) if bulk else None,
        **{f"limit_{key}": round(value, 1) for key, value in told.items()},
    }
    whole_mb_s = found["mb_s"] * found["round_s"] / found["whole_round_s"]
    result["whole_share"] = round(whole_mb_s / raw_best, 3) if bulk else None
    model_mb = options.model_mib * 1.048576
    report(
        [
            ("what", "figure", ""),
            ("round, s", found["round_s"], " ".join(f"{value:.3f}" for value in all_s)),
            ("processor seconds of a round", found["cpu_s"], "start, end and the sites' work included"),
            ("MB/s, both ways, all sites", found["mb_s"], ""),
            ("raw gRPC + mTLS, MB/s", raw_best if bulk else "-", "two clients at once, the best of sync and aio"),
            ("share of raw", result["share"] or "-", ""),
            ("with the scripts' own time: round, s", found["whole_round_s"], f"share {result['whole_share'] or '-'}"),
            (
                "server, anonymous MB",
                found["server_anon_mb"],
                f"file pages {found['server_file_mb']:.0f}; {parts['server']}",
            ),
            (
                "a site, anonymous MB",
                found["site_anon_mb"],
                f"{found['site_anon_mb'] / model_mb:.2f} x model; file pages {found['site_file_mb']:.0f}; "
                f"{next(value for name, value in parts.items() if name != 'server')}",
            ),
            *((f"limit of {options.limit_mb:.0f} MB: {key}", value, "") for key, value in told.items()),
        ],
        result,
        options.json,
    )


if __name__ == "__main__":
    main()
