"""How long a round takes, from the workflow's call to the committed next model, and how much memory it needs.

    python benchmarks/rounds.py --model-mib 512 --sites 2 --rounds 9 --json

Server and sites are real processes on this machine, over mutual TLS. Each site receives the model, puts random float32
data in its place (not timed: the slowest site's time for it is taken off the round), and sends it.
The raw baseline is measured in the same run: the same bytes over bare gRPC streams with mutual TLS, two clients at
once, 1 MiB messages, nothing written to disk. Every acknowledged blob of a round is synced to disk.

Keys of the JSON (last line of the output): round_s (median of the warm rounds), mb_s (bytes to and from all sites in a
round / round_s), raw_mb_s, share, server_anon_mb and site_anon_mb (peaks of Pss_Anon + Pss_Shmem of the server with its
job's process, and of one site's processes).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fl_runtime"))

from federation import Federation, federation, free_port

SCRIPT = """
import time
import numpy as np
import fl_runtime.client as flare
flare.init()
tensors = None
rng = np.random.default_rng(hash(flare.get_site_name()) % 2**32)
while flare.is_running():
    model = flare.receive()
    begun = time.perf_counter()
    total = float(model.params["w0"][0])  # touch it
    if tensors is None:
        tensors = {name: rng.random(value.shape, dtype=np.float32) for name, value in model.params.items()}
    else:
        for name, value in tensors.items():
            value += np.float32(0.5) + model.current_round  # other bytes each round
    spent = time.perf_counter() - begun
    flare.send(flare.FLModel(params=tensors, metrics={"spent": spent}))
"""


def anonymous_mb(pids: list[int]) -> float:
    """Pss_Anon + Pss_Shmem of processes, in MB (file pages are not counted)."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total * 1024 / 1e6


def tree(pid: int) -> list[int]:
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


class Peaks(threading.Thread):
    """Samples the memory of some process trees."""

    def __init__(self, roots: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self.roots, self.peaks, self._done = roots, dict.fromkeys(roots, 0.0), threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.25):
            for name, pid in self.roots.items():
                self.peaks[name] = max(self.peaks[name], anonymous_mb(tree(pid)))

    def stop(self) -> dict[str, float]:
        self._done.set()
        self.join()
        return self.peaks


def rounds(fed: Federation, mib: float, count: int, keep: list[float]) -> dict[str, float]:
    """One job; the median round and the memory peaks."""
    elements = int(mib * 1024 * 1024 / 4)
    parts = max(1, min(8, elements // 65536))
    tensors = {f"w{part}": [elements // parts] for part in range(parts)}
    settings = {"type": "fedavg", "rounds": count + 2, "model": {"tensors": tensors}}
    folder = fed.job("rounds", SCRIPT, workflow=settings)
    roots = {name: process.process.pid for name, process in [("server", fed.server), *fed.sites.items()]}
    peaks = Peaks(roots)
    peaks.start()
    with fed.session() as session:
        view = session.wait(session.submit(folder), 3600)
    memory = peaks.stop()
    for entry in view["history"][2:]:  # warm
        spent = max(site["spent"] for site in entry["sites"].values())
        keep.append(entry["seconds"] - spent)
    moved = 2 * len(fed.sites) * elements * 4 / 1e6
    median = statistics.median(keep)
    return {
        "round_s": median,
        "mb_s": moved / median,
        "server_anon_mb": memory["server"],
        "site_anon_mb": max(memory[name] for name in fed.sites),
    }


def raw(fed: Federation, megabytes: int = 1024, clients: int = 2) -> float:
    """Bare gRPC with mutual TLS: MB/s over all clients, half of them down, half up, as in a round."""
    import grpc

    from fl_runtime.kit import read_kit
    from fl_runtime.wire import tls

    chunk, count = bytes(1024 * 1024), megabytes // clients // 2
    port = free_port()

    def down(request, context):
        for _ in range(count):
            yield chunk

    def up(frames, context):
        for _ in frames:
            pass
        return b""

    handlers = {
        "down": grpc.unary_stream_rpc_method_handler(down),
        "up": grpc.stream_unary_rpc_method_handler(up),
    }
    server = tls.server(read_kit(fed.server.kit), 16)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("raw", handlers),))
    server.add_secure_port(f"127.0.0.1:{port}", tls.server_credentials(read_kit(fed.server.kit)))
    server.start()
    try:
        code = Path(__file__).resolve()
        import subprocess

        def client(_: int) -> None:
            argv = [sys.executable, str(code), "--raw-client", str(fed.sites["site-1"].kit), str(port), str(count)]
            subprocess.run(argv, check=True)

        begun = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(client, range(clients)))
        elapsed = time.perf_counter() - begun
        startup = _startup()
    finally:
        server.stop(0)
    return 2 * clients * count * len(chunk) / 1e6 / (elapsed - startup)


def _startup() -> float:
    """What it costs to start such a client, to be taken off."""
    import subprocess

    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import grpc, fl_runtime.wire.tls"], check=True)
    return time.perf_counter() - begun


def raw_client(kit: str, port: int, count: int) -> None:
    """One client of the baseline: download, then upload."""
    from fl_runtime.kit import Endpoint, read_kit
    from fl_runtime.wire import tls

    chunk = bytes(1024 * 1024)
    with tls.channel(read_kit(Path(kit)), Endpoint("127.0.0.1", port), bulk=True) as channel:
        for _ in channel.unary_stream("/raw/down")(b""):
            pass
        channel.stream_unary("/raw/up")(chunk for _ in range(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-mib", type=float, default=64)
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9, help="warm rounds; two more are run before")
    parser.add_argument("--json", action="store_true", help="print only the last line")
    parser.add_argument("--raw-client", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.raw_client:
        kit, port, count = options.raw_client
        raw_client(kit, int(port), int(count))
        return
    keep: list[float] = []
    with tempfile.TemporaryDirectory(prefix="fedspan-bench-") as root, federation(Path(root), options.sites) as fed:
        found = rounds(fed, options.model_mib, options.rounds, keep)
        baseline = raw(fed) if options.model_mib >= 8 else 0.0
    result = {
        "model_mib": options.model_mib,
        "sites": options.sites,
        "rounds": options.rounds,
        **{key: round(value, 4) for key, value in found.items()},
        "raw_mb_s": round(baseline, 1),
        "share": round(found["mb_s"] / baseline, 3) if baseline else None,
    }
    if not options.json:
        print("rounds:", " ".join(f"{value:.3f}" for value in keep), "s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
