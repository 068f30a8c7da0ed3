"""The simulator: 100 sites x 3 rounds of a small torch CNN on synthetic 28x28 images, 200 samples each.

    python benchmarks/simulator.py [--sites 100] [--rounds 3] [--workers 2] [--isolate] [--json]

The baseline is the same training and averaging looped in plain torch, one process, one thread, in the same run. Memory
is the largest sum of `Pss` of all the simulation's processes (smaps_rollup), so that shared pages count once.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SAMPLES, BATCH = 200, 32

TRAIN = """
import sys
import torch
from torch import nn
import fl_runtime.client as flare

SAMPLES, BATCH = {samples}, {batch}


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10),
    )


def data(number):
    made = torch.Generator().manual_seed(number)
    images = torch.randn(SAMPLES, 1, 28, 28, generator=made)
    return images, (images.mean((1, 2, 3)) * 300 + number).long() % 10


def epoch(net, images, labels):
    optimizer, loss_of = torch.optim.SGD(net.parameters(), lr=0.05), nn.CrossEntropyLoss()
    net.train()
    for rows in torch.randperm(SAMPLES).split(BATCH):
        optimizer.zero_grad()
        loss_of(net(images[rows]), labels[rows]).backward()
        optimizer.step()


def main():
    torch.set_num_threads(1)
    flare.init()
    number = int(flare.get_site_name().split("-")[1])
    net, (images, labels) = network(), data(number)
    torch.manual_seed(number)
    while flare.is_running():
        model = flare.receive()
        if model.params:
            net.load_state_dict(model.params)
        epoch(net, images, labels)
        flare.send(flare.FLModel(params=net.state_dict(), meta={{"NUM_STEPS_CURRENT_ROUND": SAMPLES}}))


if __name__ == "__main__":
    main()
"""

BASELINE = """
import sys, time, json
sys.path.insert(0, {folder!r})
import torch
import train
torch.set_num_threads(1)
begun = time.perf_counter()
net = train.network()
model = None
sites = [train.data(n + 1) for n in range({sites})]
for _ in range({rounds}):
    total = None
    for images, labels in sites:
        if model is not None:
            net.load_state_dict(model)
        train.epoch(net, images, labels)
        state = net.state_dict()
        if total is None:
            total = {{name: value.double() for name, value in state.items()}}
        else:
            for name, value in state.items():
                total[name] += value
    model = {{name: (value / len(sites)).float() for name, value in total.items()}}
print(json.dumps({{"loop_s": time.perf_counter() - begun}}))
"""


def write_job(folder: Path, rounds: int) -> None:
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(TRAIN.format(samples=SAMPLES, batch=BATCH))
    workflow = {"type": "fedavg", "rounds": rounds}
    (folder / "job.json").write_text(
        json.dumps({"name": "cnn", "script": "train.py", "framework": "torch", "workflow": workflow})
    )


class Memory:
    """The largest sum of Pss of this process's descendants and itself, sampled."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        own = psutil.Process()
        while not self._over.wait(0.5):
            total = 0
            for process in [own, *own.children(recursive=True)]:
                try:
                    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                except OSError:
                    continue
                total += int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])
            self.peak_mb = max(self.peak_mb, total / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--isolate", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started and written goes along
    from fl_runtime.simulator import simulate

    with tempfile.TemporaryDirectory(prefix="fedspan-simulator-") as scratch:
        job = Path(scratch) / "job"
        write_job(job, options.rounds)
        begun = time.perf_counter()
        with Memory() as memory:
            done = simulate(
                job, sites=options.sites, workers=options.workers, isolate=options.isolate, to=Path(scratch) / "results"
            )
        simulated = time.perf_counter() - begun
        assert done.view["state"] == "FINISHED"
        script = BASELINE.format(folder=str(job), sites=options.sites, rounds=options.rounds)
        begun = time.perf_counter()
        told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        looped = time.perf_counter() - begun
    result = {
        "sites": options.sites,
        "rounds": options.rounds,
        "workers": options.workers,
        "isolate": options.isolate,
        "simulator_s": round(simulated, 2),
        "plain_torch_s": round(looped, 2),
        "plain_torch_loop_s": round(json.loads(told)["loop_s"], 2),
        "share": round(simulated / looped, 2),
        "round_s": [entry["seconds"] for entry in done.view["history"]],
        "peak_pss_mb": round(memory.peak_mb),
    }
    if not options.json:
        for key, value in result.items():
            print(f"{key:<20} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
