"""How long `up` takes for a server and eight sites when the clouds are as slow as clouds are, beside the critical path.

    python benchmarks/deploy.py [--sites 8] [--runs 3] [--json]

The emulated clouds answer late: a network after 5 s, an address after 2 s, an EC2 instance after 35 s, an Azure machine
after 60 s. The critical path is estimated as the latencies on the longest chain (network, address, machine), plus what
one server and one site take in the same run without any latency (planning, engines, push, start, registration), one
after the other. Some of that work goes on while a cloud is waited for, so that `up` may be a little shorter. All
machines and engines run on this computer: with many sites and few cores the processor becomes a latency of its own,
which in the field each machine has to itself. The last line of the output is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

NETWORK_S, ADDRESS_S, INSTANCE_S, AZURE_VM_S = 5.0, 2.0, 35.0, 60.0
DELAYS = {
    "ec2:vpc": NETWORK_S,
    "Microsoft.Network/virtualNetworks": NETWORK_S,
    "ec2:elastic-ip": ADDRESS_S,
    "Microsoft.Network/publicIPAddresses": ADDRESS_S,
    "ec2:instance": INSTANCE_S,
    "Microsoft.Compute/virtualMachines": AZURE_VM_S,
}
LATENCY_S = NETWORK_S + ADDRESS_S + AZURE_VM_S
AIMS = {"up / critical path": 1.15, "second up, s": 10.0, "status, s": 1.0}
AWS_REGIONS = ("eu-central-1", "eu-west-1", "eu-west-3", "eu-north-1")
AZURE_REGIONS = ("westeurope", "northeurope", "francecentral", "swedencentral")


@dataclass
class Run:
    """One command: seconds, and what it told as JSON."""

    seconds: float
    events: list[dict[str, Any]]


@dataclass
class World:
    """A sandbox and a workspace of this benchmark's own."""

    folder: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        for name in ("home", "state", "cache", "fed"):
            (self.folder / name).mkdir(exist_ok=True)
        self.environment = {
            **kept,
            "HOME": str(self.folder / "home"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "FEDSPAN_SANDBOX": "1",
            "FEDSPAN_SANDBOX_HOME": str(self.folder / "sandbox"),
            "FEDSPAN_PASSPHRASE": "correct horse battery staple",
        }

    def write(self, sites: int) -> None:
        """A server on Azure, and sites on both clouds in turn."""
        spec = {
            "version": 1,
            "name": "bench",
            "server": {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5"},
            "sites": {f"site-{number + 1}": site(number) for number in range(sites)},
            "admins": {"ana@hospital-a.example": {"role": "lead"}},
        }
        (self.folder / "fed" / "federation.yml").write_text(yaml.safe_dump(spec, sort_keys=False))

    def run(self, *words: str) -> Run:
        """One command as a user types it."""
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "deployer.cli", *words, "--json"],
            cwd=self.folder / "fed",
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - begun
        if done.returncode != 0:
            sys.exit(f"fedspan {' '.join(words)} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr}")
        return Run(seconds, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")])

    def faults(self, delays: dict[str, float]) -> None:
        """From now on exactly these latencies."""
        os.environ["FEDSPAN_SANDBOX_HOME"] = self.environment["FEDSPAN_SANDBOX_HOME"]
        from deployer.sandbox.client import Sandbox
        from deployer.sandbox.faults import Faults

        Sandbox.ensure().set_faults(Faults(delays=delays))

    def close(self) -> None:
        """End the sandbox with everything in it; where it does not end, the folder that tells of it stays."""
        words = [sys.executable, "-m", "deployer.cli", "sandbox", "stop"]
        done = subprocess.run(words, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"the sandbox of {self.folder} did not end: {done.stdout}{done.stderr}", file=sys.stderr)
            return
        shutil.rmtree(self.folder)


def site(number: int) -> dict[str, str]:
    """AWS and Azure in turn, each in another region."""
    if number % 2 == 0:
        return {"target": "aws", "region": AWS_REGIONS[number // 2 % 4], "size": "m7i.large"}
    return {"target": "azure", "region": AZURE_REGIONS[number // 2 % 4], "size": "Standard_D2s_v5"}


def phases(run: Run) -> dict[str, dict[str, float]]:
    """Seconds of each phase of each participant, as the command told them."""
    return next((dict(event["phases"]) for event in run.events if event.get("event") == "timing"), {})


def measure(sites: int, scale: float, runs: int) -> dict[str, Any]:
    """Everything in one world, in this order; what is up at the end is taken down."""
    latency_s = LATENCY_S * scale
    world = World(Path(tempfile.mkdtemp(prefix="fedspan-deploy-bench-")))
    try:
        world.faults({})
        world.write(1)
        world.run("provision")
        world.run("up", "--yes")  # wheels and byte code are made once for all
        world.run("down", "--yes")
        alone = world.run("up", "--yes")
        world.run("down", "--yes")
        world.write(sites)
        world.run("provision")
        world.faults({what: seconds * scale for what, seconds in DELAYS.items()})
        full = world.run("up", "--yes")
        again = min((world.run("up", "--yes") for _ in range(runs)), key=lambda run: run.seconds)
        status = min((world.run("status") for _ in range(runs)), key=lambda run: run.seconds)
        world.faults({})
        world.run("down", "--yes")
    finally:
        world.close()
    return {
        "sites": sites,
        "latencies_s": latency_s,
        "alone_s": alone.seconds,
        "critical_s": latency_s + alone.seconds,
        "up_s": full.seconds,
        "ratio": full.seconds / (latency_s + alone.seconds),
        "second_up_s": again.seconds,
        "status_s": status.seconds,
        "phases": phases(full),
    }


def tell(result: dict[str, Any]) -> None:
    """The table for people."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"server and {result['sites']} sites; load {os.getloadavg()[0]:.1f} at the end\n")
    rows = (
        ("latencies on the longest chain", f"{result['latencies_s']:.1f} s", ""),
        ("server and one site without latencies", f"{result['alone_s']:.1f} s", "baseline, same run"),
        ("critical path", f"{result['critical_s']:.1f} s", "the two, one after the other"),
        ("up", f"{result['up_s']:.1f} s", ""),
        ("up / critical path", f"{result['ratio']:.2f}", f"aim: {AIMS['up / critical path']}"),
        ("second up", f"{result['second_up_s']:.1f} s", f"aim: {AIMS['second up, s']:.0f} s"),
        ("status", f"{result['status_s']:.2f} s", f"aim: {AIMS['status, s']:.0f} s"),
    )
    for name, value, note in rows:
        print(f"  {name:<40}{value:>10}  {note}")
    print("\nseconds of each phase")
    names = list(dict.fromkeys(phase for own in result["phases"].values() for phase in own))
    print(f"  {'':<10}" + "".join(f"{name:>12}" for name in names))
    for participant, own in result["phases"].items():
        print(f"  {participant:<10}" + "".join(f"{own.get(name, 0.0):>12.1f}" for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--scale", type=float, default=1.0, help="of the latencies: 0.1 = a tenth of them")
    parser.add_argument("--runs", type=int, default=3, help="of the second up and of status; the fastest counts")
    parser.add_argument("--json", action="store_true", help="print only the last line")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the sandbox ends with us
    result = measure(given.sites, given.scale, given.runs)
    if not given.json:
        tell(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
