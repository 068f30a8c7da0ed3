"""Faults on purpose, one in each run: at a call that the engine makes to a cloud, and at exactly that one.

The emulated clouds run in this very process, so that a fault strikes synchronously: when the engine's call of a
provider comes in, or when the cloud has done it and before anybody hears of it. No machines are booted: `up` ends when
it finds nobody to log in to, which is when every resource is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import yaml
from e2e_world import LEAD, Result

from deployer.sandbox import faults
from deployer.sandbox.daemon import Daemon
from deployer.sandbox.model import InventoryItem
from deployer.sandbox.provider_base import ProviderPlugin
from deployer.sandbox.provider_resource import ProviderError

SITES: dict[str, dict[str, Any]] = {
    "aws": {"target": "aws", "region": "eu-central-1", "zone": "eu-central-1a", "size": "m7i.large"},
    "azure": {"target": "azure", "region": "westeurope", "size": "Standard_D2s_v5"},
}
GONE = 'Post "https://cloud.example/": dial tcp: lookup cloud.example: no such host'
Call = tuple[str, str]
"""What a provider is asked for: the verb and the resource's logical name (a function's token)."""


class CloudsOnly(Daemon):
    """A sandbox without machines."""

    def _follow(self) -> None:
        """Nothing is booted."""


@dataclass
class Bench:
    """Clouds, a workspace with one site, and the command; what is struck, and when."""

    folder: Path
    daemon: CloudsOnly
    warm: subprocess.Popen[str]
    environment: dict[str, str]
    calls: list[Call] = field(default_factory=list)
    strike_at: Call | None = None
    strike: Callable[[Bench, str], None] | None = None
    """Called with `before` or `after` at the call `strike_at`; an exception is the call's answer."""
    struck: bool = False
    """Set by whatever strikes, when it does."""
    offline: bool = False
    """No call comes through any more, until this command has ended."""
    command_pid: int = 0

    @property
    def fed(self) -> Path:
        return self.folder / "fed"

    def write(self, cloud: str, **site: Any) -> None:
        """federation.yml with one site in that cloud, and what else is said of it; the server is its owner's."""
        spec = {
            "version": 1,
            "name": "digits",
            "server": {"target": "kit"},
            "sites": {"site-1": {**SITES[cloud], **site}},
            "admins": {LEAD: {"role": "lead"}},
        }
        self.fed.mkdir(exist_ok=True)
        (self.fed / "federation.yml").write_text(yaml.safe_dump(spec, sort_keys=False))

    def run(self, *argv: str) -> Result:
        """One command to its end."""
        out, err = self.folder / "out", self.folder / "err"
        request = {
            "argv": argv,
            "cwd": str(self.fed),
            "environment": self.environment,
            "out": str(out),
            "err": str(err),
        }
        assert self.warm.stdin is not None
        assert self.warm.stdout is not None
        begun = time.monotonic()
        self.warm.stdin.write(json.dumps(request) + "\n")
        self.warm.stdin.flush()
        self.command_pid = json.loads(self.warm.stdout.readline())["pid"]
        status = json.loads(self.warm.stdout.readline())["status"]
        self.command_pid, self.offline = 0, False
        return Result(status, out.read_text(), err.read_text(), time.monotonic() - begun)

    def inventory(self) -> list[InventoryItem]:
        return self.daemon.inventory()

    # -- what strikes -------------------------------------------------------------------------------------------
    def engines(self) -> list[int]:
        """The engine commands that work for this workspace."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            with contextlib.suppress(psutil.Error):
                words = process.info["cmdline"] or []
                if any("pulumi" in word for word in words) and Path(process.cwd()).is_relative_to(self.fed):
                    found.append(process.pid)
        return found

    def kill_engines(self) -> None:
        for pid in self.engines():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_command(self) -> None:
        os.kill(self.command_pid, signal.SIGKILL)

    def wait_for_engines(self) -> None:
        """Until engines that outlived their command have saved and ended."""
        end = time.monotonic() + 180
        while self.engines():
            assert time.monotonic() < end, "an engine does not end"
            time.sleep(0.05)

    def close(self) -> None:
        self.kill_engines()
        self.warm.kill()
        self.warm.communicate()
        self.daemon.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def offline() -> None:
    """What every call answers when the network is gone."""
    raise ProviderError(GONE)


def listening(bench: Bench) -> Callable[..., Any]:
    """A `ProviderPlugin._run` that strikes."""
    original = ProviderPlugin._run

    def run(
        self: ProviderPlugin, context: grpc.ServicerContext, call: Any, verb: str, work: Any, request: Any = None
    ) -> Any:
        here = (verb, call.name or call.type)
        bench.calls.append(here)
        if bench.offline:
            return original(self, context, call, verb, offline, request)
        strike = bench.strike if here == bench.strike_at and not bench.struck else None
        if strike is None:
            return original(self, context, call, verb, work, request)

        def struck_work() -> Any:
            strike(bench, "before")
            return work()

        answer = original(self, context, call, verb, struck_work, request)
        try:
            strike(bench, "after")
        except ProviderError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return answer

    return run


@contextlib.contextmanager
def bench_in(cache: Path) -> Iterator[Bench]:
    """A bench with its clouds in this process."""
    folder = Path(tempfile.mkdtemp(prefix="fedspan-faults-"))
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "PYTHONPATH") if name in os.environ}
    for name in ("home", "state", "sandbox"):
        (folder / name).mkdir(mode=0o700)
    environment = {
        **kept,
        "HOME": str(folder / "home"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(cache),
        "FEDSPAN_SANDBOX": "1",
        "FEDSPAN_SANDBOX_HOME": str(folder / "sandbox"),
        "FEDSPAN_PASSPHRASE": "correct horse battery staple",
        "COLUMNS": "200",
        "FEDSPAN_SSH_DEADLINE": "0.01",
        "GRPC_VERBOSITY": "ERROR",  # as the command itself sets it, before gRPC is imported
    }
    before = faults.book()
    for name in ("tmp", "home"):
        (folder / "sandbox" / name).mkdir(mode=0o700)
    warm = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm.py"))],
        env=environment,
        cwd=folder,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    daemon = CloudsOnly(folder / "sandbox")
    daemon.start()
    bench = Bench(folder, daemon, warm, environment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProviderPlugin, "_run", listening(bench))
        try:
            yield bench
        finally:
            bench.close()
            faults._book = before
