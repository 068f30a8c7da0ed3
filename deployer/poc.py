"""A whole federation on this machine: a server, sites and an admin, each a real process with a kit of its own.

Everything lies in one folder (kits, CA, state, logs), and goes with it. The processes are those that a site's owner
would start, on loopback; only provisioning by hand and machines are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deployer.errors import MachineError, NotRegisteredError, RefusedError, UsageError
from startup_kits.kit import Kit
from startup_kits.passphrase import PassphraseSource
from startup_kits.provision import provision
from startup_kits.spec import load_spec
from startup_kits.workspace import Workspace

MARK = "poc.json"
ADMIN = "admin@poc.example"
SERVER = "server"
PORT = 8002
REGISTER_S = 60.0
STOP_S = 60.0
_HOST = "127.0.0.1"
_RUNTIME = [sys.executable, "-m", "fl_runtime"]


@dataclass(frozen=True)
class Poc:
    """The federation in `root`."""

    root: Path

    @property
    def exists(self) -> bool:
        return (self.root / MARK).is_file()

    @property
    def names(self) -> list[str]:
        """The server, then the sites."""
        return list(self._note()["participants"])

    @property
    def port(self) -> int:
        return int(self._note()["port"])

    @property
    def admin_kit(self) -> Path:
        return self.root / "kits" / ADMIN

    def _note(self) -> dict[str, Any]:
        try:
            note: dict[str, Any] = json.loads((self.root / MARK).read_text())
        except (OSError, ValueError) as error:
            raise UsageError(
                f"there is no federation in {self.root}", why=str(error), next_step="fedspan poc up"
            ) from None
        return note

    def state(self, name: str) -> Path:
        return self.root / "state" / name

    # --- kits

    def prepare(self, sites: int, data: Sequence[str] = ()) -> None:
        """Make the kits; those that are there stay.

        Args:
            data: NAME=PATH for every site; `{site}` and `{n}` in it.

        Raises:
            UsageError: a number of sites that is none, or data that is not there.
            RefusedError: something else lies in the folder, or a federation of another size.
        """
        if not 1 <= sites <= 100:
            raise UsageError(f"{sites} sites can't be", why="1 to 100 run here", next_step="fedspan poc up -n 2")
        names = [f"site-{number + 1}" for number in range(sites)]
        if self.exists:
            if self.names != [SERVER, *names]:
                raise RefusedError(
                    f"a federation of {len(self.names) - 1} sites lies in {self.root}",
                    why=f"asked for: {sites}",
                    next_step=f"fedspan poc down{self._option}, or fedspan poc start{self._option}",
                )
        else:
            if self.root.exists() and any(self.root.iterdir()):
                raise RefusedError(
                    f"{self.root} is not empty",
                    why="no federation of ours lies there",
                    next_step="--dir ANOTHER_FOLDER",
                )
            port = free_port()
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.root / MARK).write_text(json.dumps({"port": port, "participants": [SERVER, *names]}))
            spec = {
                "version": 1,
                "name": "poc",
                "server": {"target": "kit", "port": port},
                "sites": {name: {"target": "kit"} for name in names},
                "admins": {ADMIN: {"role": "lead"}},
            }
            (self.root / "federation.yml").write_text(yaml.safe_dump(spec, sort_keys=False))
        workspace = Workspace.find(self.root)
        provision(workspace, load_spec(workspace.spec_path), PassphraseSource(workspace.passphrase_path, environ={}))
        for name in [*self.names, ADMIN]:
            Kit.open(workspace.kits_dir / name).set_endpoint(f"{_HOST}:{self.port}", None)
        if data:
            from deployer.local_configure import set_data

            for number, name in enumerate(names, 1):
                pairs = [pair.replace("{site}", name).replace("{n}", str(number)) for pair in data]
                set_data(Kit.open(workspace.kits_dir / name), pairs)

    @property
    def _option(self) -> str:
        return "" if self.root == Path("poc").absolute() else f" --dir {self.root}"

    # --- processes

    def start(self, only: Sequence[str] = ()) -> None:
        """Start what does not run, and wait until every site is registered.

        Raises:
            MachineError: a process can't be started, or does not stay up.
            NotRegisteredError: a site is not registered after a minute; it goes on trying.
        """
        for name in only or self.names:
            if self.status(name) is None:
                self._spawn(name)
        wanted = [name for name in only or self.names if name != SERVER]
        until = time.monotonic() + REGISTER_S
        while True:
            server = self.status(SERVER) or {}
            missing = [name for name in wanted if not server.get("sites", {}).get(name, {}).get("registered")]
            if server and not missing:
                return
            for name in [SERVER, *missing]:
                if not self._lives(name):
                    raise MachineError(
                        f"the process of {name} does not stay up",
                        participant=name,
                        log=str(self.log(name)),
                        why=_last_line(self.log(name)),
                        next_step=f"fedspan poc down{self._option}",
                    )
            if time.monotonic() > until:
                raise NotRegisteredError(
                    f"{', '.join(missing) or SERVER} did not come up within {REGISTER_S:.0f} s",
                    log=str(self.log(missing[0] if missing else SERVER)),
                    next_step=f"fedspan poc status{self._option}",
                )
            time.sleep(0.1)

    def _spawn(self, name: str) -> None:
        state = self.state(name)
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        serve = [*_RUNTIME, "serve", "--kit", str(self.root / "kits" / name), "--state", str(state)]
        command = [*_RUNTIME, "supervise", "--state", str(state), "--", *serve, "--label", "target=poc"]
        quiet = {**os.environ, "FEDSPAN_BIND": _HOST, "no_proxy": f"{_HOST},localhost"}
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=quiet
        )
        if done.returncode != 0:
            raise MachineError(
                f"{name} can't be started",
                participant=name,
                why=done.stderr.strip() or None,
                next_step=f"fedspan poc down{self._option}",
            )

    def stop(self, only: Sequence[str] = ()) -> list[str]:
        """Stop processes, sites first, all at once; the names of those that ran."""
        running = [name for name in only or self.names if self._lives(name)]
        order = sorted(running, key=lambda name: name == SERVER)
        for group in ([name for name in order if name != SERVER], [name for name in order if name == SERVER]):
            stopping = {
                name: subprocess.Popen(
                    [*_RUNTIME, "stop", "--state", str(self.state(name))],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for name in group
            }
            for name, process in stopping.items():
                _, told = process.communicate(timeout=STOP_S)
                if process.returncode != 0 or self._lives(name):
                    raise MachineError(f"{name} does not stop", participant=name, why=told.strip() or None)
        return running

    def down(self) -> list[str]:
        """Stop everything and remove the folder."""
        if not self.exists:
            return []
        stopped = self.stop()
        shutil.rmtree(self.root)
        return stopped

    def status(self, name: str) -> dict[str, Any] | None:
        """What the participant's process says; None where none answers."""
        from fl_runtime.status import read_status

        found = read_status(self.state(name))
        return found if found.get("running") else None

    def _lives(self, name: str) -> bool:
        from fl_runtime.supervise import supervisor

        return supervisor(self.state(name)) is not None or self.status(name) is not None

    def log(self, name: str) -> Path:
        return self.state(name) / "runtime.log"


def free_port() -> int:
    """The usual port if nobody has it, else any."""
    for port in (PORT, 0):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((_HOST, port))
            except OSError:
                continue
            return int(sock.getsockname()[1])
    raise MachineError("no port is free here", next_step="ss -ltnp")


def _last_line(path: Path) -> str | None:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return None
    return lines[-1] if lines else None
