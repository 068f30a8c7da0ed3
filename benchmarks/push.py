"""How long it takes from a bare machine to a running participant, by step, beside the simplest ways to do the same.

    python benchmarks/push.py [--machines 3] [--runs 3] [--json]

Machines are the sandbox's (a process each, SSH on loopback), so the network costs nothing and the processor everything:
the other end's encryption, unpacking and start run on the same cores. The baselines run in the same minute, with the
same bytes: `cp -r` of the bundle, paramiko's SFTP to the same machine, `venv` with pip installing the same wheels here.
Medians of the runs; the smallest and the largest in brackets.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko
import yaml

from deployer.bootstrap import Installed, install_participant, runtime_remove, runtime_stop
from deployer.bundle import Bundle, build_bundle
from deployer.keys import KeyStore
from deployer.sandbox.machines.standalone import Machines, machines
from deployer.sandbox.model import MachineSpec, Rule
from deployer.ssh import Machine, connect
from deployer.targets import Target
from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import provision
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace

SSH_PORT, PORT = 2222, 8002
STEPS = ("boot", "bundle", "push", "install", "kit", "verify", "start")
Times = dict[str, list[float]]


def boot(some: Machines, keys: KeyStore, name: str) -> str:
    """An emulated machine with fedspan's keys; its address."""
    address, host = some.address(), keys.host(name)
    config = {
        "users": [{"name": "fedspan", "ssh_authorized_keys": [keys.login("bench").public]}],
        "ssh_keys": {"ed25519_private": host.private, "ed25519_public": host.public},
        "write_files": [{"path": "/etc/ssh/sshd_config.d/10-fedspan.conf", "content": f"Port {SSH_PORT}\n"}],
    }
    some.put(
        MachineSpec(
            id=name,
            cloud="aws",
            account="1",
            region="eu",
            zone=None,
            size="t",
            running=True,
            user_data="#cloud-config\n" + yaml.safe_dump(config),
            login_keys=(),
            public_ip=address,
            private_ip="10.0.0.4",
            ingress=(Rule(SSH_PORT, SSH_PORT, "tcp", "198.51.100.10/32"), Rule(PORT, PORT, "tcp", "0.0.0.0/0")),
            volumes=(),
            tags={"fedspan:participant": name},
        )
    )
    keys.pin(address, SSH_PORT, host.public)
    return address


def timed(times: Times, name: str, work: Callable[[], object]) -> None:
    started = time.monotonic()
    work()
    times[name].append(time.monotonic() - started)


def baselines(times: Times, bundle: Bundle, machine: Machine, scratch: Path) -> None:
    """The same bytes by the simplest means."""
    timed(times, "cp -r of the bundle, here", lambda: shutil.copytree(bundle.folder, scratch / "copy"))
    remote = machine.path("/opt/by-sftp")

    def sftp() -> None:
        client = paramiko.SFTPClient.from_transport(machine.transport)
        assert client is not None
        machine.run(["mkdir", "-p", remote])
        for wheel in bundle.folder.iterdir():
            client.put(str(wheel), f"{remote}/{wheel.name}")
        client.close()

    timed(times, "paramiko SFTP of the bundle", sftp)
    timed(times, "put_tree of the bundle", lambda: machine.put_tree(bundle.folder, machine.path("/opt/by-push")))
    timed(times, "put_tree of the bundle, again", lambda: machine.put_tree(bundle.folder, machine.path("/opt/by-push")))

    def pip() -> None:
        base = getattr(sys, "_base_executable", sys.executable)
        subprocess.run([base, "-m", "venv", "--without-pip", str(scratch / "venv")], check=True)
        wheel = next(bundle.folder.glob("pip-*.whl"))
        argv = [str(scratch / "venv/bin/python"), f"{wheel}/pip", "install", "--quiet", "--no-index", "--no-deps"]
        wheels = [str(path) for path in bundle.folder.glob("*.whl")]
        subprocess.run([*argv, "--no-cache-dir", "--disable-pip-version-check", *wheels], check=True)

    timed(times, "venv and plain pip install, here", pip)
    machine.run(["rm", "-rf", remote, machine.path("/opt/by-push")])
    shutil.rmtree(scratch)
    scratch.mkdir()


def row(name: str, values: list[float], note: str = "") -> str:
    spread = f"[{min(values):.2f} to {max(values):.2f}]"
    return f"| {name} | {statistics.median(values):.2f} | {spread} | {note} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print only a line of JSON: medians in seconds")
    options = parser.parse_args()
    names = ["server", *(f"site-{number}" for number in range(1, options.machines))]
    with tempfile.TemporaryDirectory(prefix="fedspan-bench-") as name, machines() as some:
        folder = Path(name)
        spec = {
            "version": 1,
            "name": "bench",
            "server": {"target": "host", "host": "127.0.0.1", "user": "fedspan", "port": PORT},
            "sites": {site: {"target": "host", "host": "127.0.0.1", "user": "fedspan"} for site in names[1:]},
            "admins": {"ana@hospital-a.example": {"role": "lead"}},
        }
        (folder / "federation.yml").write_text(yaml.safe_dump(spec))
        workspace = Workspace.find(folder / "federation.yml")
        source = PassphraseSource(workspace.passphrase_path, environ={"FEDSPAN_PASSPHRASE": "of a benchmark"})
        kits = provision(workspace, load_spec(folder / "federation.yml"), source).kits
        keys, cache, scratch = KeyStore(workspace.ssh_dir), folder / "cache", folder / "scratch"
        scratch.mkdir()
        steps: Times = defaultdict(list)
        whole: Times = defaultdict(list)
        addresses = {participant: boot(some, keys, participant) for participant in names}
        endpoint = f"{addresses['server']}:{PORT}"

        def log_in(participant: str) -> Machine:
            where = (addresses[participant], SSH_PORT, "fedspan", keys.login_path, keys.known_hosts)
            return connect(*where, 20, name=participant)

        def install(participant: str) -> Installed:
            with log_in(participant) as machine:
                started = time.monotonic()
                done = install_participant(machine, kits[participant], cache, endpoint, {"target": "aws"})
                whole["one machine" if done.changed else "one machine, again"].append(time.monotonic() - started)
                return done

        timed(whole, "making the bundle, once", lambda: build_bundle(Target.here(), cache))
        bundle = build_bundle(Target.here(), cache)
        for _ in range(options.runs):
            with ThreadPoolExecutor(len(names)) as pool:
                started = time.monotonic()
                results = list(pool.map(install, names))
                whole["all machines at once"].append(time.monotonic() - started)
                started = time.monotonic()
                again = list(pool.map(install, names))
                whole["all machines, again"].append(time.monotonic() - started)
            assert not [done for done in again if done.changed or done.sent_bytes]
            for done in results:
                for step, seconds in done.seconds.items():
                    steps[step].append(seconds)
            for participant in names:
                with log_in(participant) as machine:
                    runtime_stop(machine)
                    runtime_remove(machine)
            with log_in("server") as machine:
                started = time.monotonic()
                install_participant(machine, kits["server"], cache, endpoint, {"target": "aws"})
                whole["one machine, alone"].append(time.monotonic() - started)
                runtime_remove(machine)
                baselines(whole, bundle, machine, scratch)

    medians = {
        "bundle_mb": round(bundle.size / 1e6, 2),
        **{f"step: {step}": round(statistics.median(steps[step]), 3) for step in STEPS if steps[step]},
        **{label: round(statistics.median(whole[label]), 3) for label in sorted(whole)},
    }
    if options.json:
        print(json.dumps(medians))
        return
    count = len(list(steps["push"]))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]};"
    )
    print(f"bundle {bundle.size / 1e6:.1f} MB; {len(names)} machines, {options.runs} runs\n")
    print("| what | s | smallest to largest | |\n|---|---|---|---|")
    for step in STEPS:
        if steps[step]:
            print(row(f"step: {step}", steps[step], f"each of {len(names)} at once, {count} times"))
    for label in sorted(whole):
        rate = ""
        if "bundle" in label and "again" not in label and "making" not in label:
            rate = f"{bundle.size / 1e6 / statistics.median(whole[label]):.0f} MB/s"
        print(row(label, whole[label], rate))
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
