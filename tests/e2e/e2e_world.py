"""A federation in a sandbox of its own, driven by the real command as a user would."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import yaml
from azure.identity import ClientSecretCredential

from deployer.realm_sandbox import aws_session
from deployer.sandbox.client import Sandbox
from deployer.sandbox.faults import Faults

LEAD = "ana@hospital-a.example"
COMMAND = [sys.executable, "-m", "deployer.cli"]
PATIENCE = 240

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "digits",
    "residency": ["EU"],
    "defaults": {"owner": "lead@hospital-a.example", "ssh_from": "auto"},
    "server": {"target": "azure", "region": "westeurope", "size": "Standard_D4s_v5"},
    "sites": {"site-1": {"target": "aws", "region": "eu-central-1", "size": "m7i.large"}},
    "admins": {LEAD: {"role": "lead", "from": ["198.51.100.0/24"]}},
}


@dataclass
class Result:
    """How one command ended, and what it told."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines on standard output."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith(("{", "["))]

    @property
    def last(self) -> dict[str, Any]:
        """The last JSON line: the result, or the error."""
        return self.events[-1]

    def ok(self) -> Result:
        """The same, once it ended well."""
        assert self.code == 0, f"exit {self.code}\n{self.out}\n{self.err}"
        return self


@dataclass
class World:
    """A sandbox, a workspace in it, and the command."""

    folder: Path
    environment: dict[str, str]
    spec: dict[str, Any] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def fed(self) -> Path:
        return self.folder / "fed"

    @property
    def kits(self) -> Path:
        return self.fed / "kits"

    def write(self, spec: dict[str, Any]) -> None:
        """Write federation.yml."""
        self.fed.mkdir(exist_ok=True)
        self.spec = spec
        (self.fed / "federation.yml").write_text(yaml.safe_dump(spec, sort_keys=False))

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """Start a command; its output goes into pipes."""
        process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.fed,
            env={**self.environment, **more.pop("environment", {})},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )
        self.started.append(process)
        return process

    def stop_all(self) -> None:
        """Kill what still runs of the commands that were started."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate()
        self.started.clear()

    def run(self, *words: str, environment: dict[str, str] | None = None) -> Result:
        """Run a command to its end."""
        begun = time.monotonic()
        process = self.start(*words, environment=environment or {})
        out, err = process.communicate(timeout=PATIENCE)
        return Result(process.returncode, out, err, time.monotonic() - begun)

    def json(self, *words: str) -> Result:
        """Run a command with `--json`."""
        return self.run(*words, "--json")

    @property
    def sandbox(self) -> Sandbox:
        """This world's sandbox, started when need be."""
        before = os.environ.get("FEDSPAN_SANDBOX_HOME")
        os.environ["FEDSPAN_SANDBOX_HOME"] = self.environment["FEDSPAN_SANDBOX_HOME"]
        try:
            return Sandbox.ensure()
        finally:
            if before is None:
                del os.environ["FEDSPAN_SANDBOX_HOME"]
            else:
                os.environ["FEDSPAN_SANDBOX_HOME"] = before

    def inventory(self) -> list[str]:
        """Everything that both clouds hold now: `kind name`."""
        return sorted(f"{item.kind} {item.name}" for item in self.sandbox.inventory())

    def faults(self, **faults: Any) -> None:
        """From now on exactly these things go wrong."""
        self.sandbox.set_faults(Faults(**faults))

    def endpoint(self, name: str) -> str:
        """The server's address in a kit."""
        return str(yaml.safe_load((self.kits / name / "local" / "endpoint.yml").read_text())["server"])

    def close(self) -> None:
        """End the sandbox and whatever else was started in this world, and remove everything."""
        self.stop_all()
        subprocess.run([*COMMAND, "sandbox", "stop"], env=self.environment, cwd=self.folder, capture_output=True)
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, 20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """What lives with this world's environment, such as engines whose command was killed."""
        sandbox, found = self.environment["FEDSPAN_SANDBOX_HOME"], []
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("FEDSPAN_SANDBOX_HOME") == sandbox and process.pid != os.getpid():
                found.append(process)
        return found


def make_world(cache: Path) -> World:
    """An empty world; the caller closes it."""
    folder = Path(tempfile.mkdtemp(prefix="fedspan-e2e-"))
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "PYTHONPATH") if name in os.environ}
    for name in ("home", "state"):
        (folder / name).mkdir()
    environment = {
        **kept,
        "HOME": str(folder / "home"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(cache),
        "FEDSPAN_SANDBOX": "1",
        "FEDSPAN_SANDBOX_HOME": str(folder / "sandbox"),
        "FEDSPAN_PASSPHRASE": "correct horse battery staple",
        "COLUMNS": "200",
        # a command that has to give up must not keep a test waiting for minutes
        "FEDSPAN_SSH_DEADLINE": "150",
        "FEDSPAN_REGISTER_DEADLINE": "120",
    }
    if pulumi_root := os.environ.get("FEDSPAN_PULUMI_ROOT"):
        environment["FEDSPAN_PULUMI_ROOT"] = pulumi_root
    return World(folder, environment)


def ec2(world: World) -> Any:
    """EC2's client, as somebody would use it behind fedspan's back."""
    session = aws_session(world.sandbox.aws_environment(None), "eu-central-1")
    return session.client("ec2", endpoint_url=world.sandbox.aws_endpoints()["ec2"])


def arm(world: World) -> dict[str, Any]:
    """What a client of azure-mgmt is made with, likewise."""
    environment = world.sandbox.azure_environment()
    verify: Any = {"connection_verify": environment["REQUESTS_CA_BUNDLE"]}
    credential = ClientSecretCredential(
        environment["ARM_TENANT_ID"],
        environment["ARM_CLIENT_ID"],
        environment["ARM_CLIENT_SECRET"],
        authority=environment["AZURE_AUTHORITY_HOST"],
        disable_instance_discovery=True,
        **verify,
    )
    endpoint = environment["ARM_ENDPOINT"]
    return {
        "credential": credential,
        "subscription_id": environment["ARM_SUBSCRIPTION_ID"],
        "base_url": endpoint,
        "credential_scopes": [f"{endpoint}/.default"],
        "polling_interval": 0.2,
        **verify,
    }


def copy_of(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A deep copy of a spec, with top-level parts replaced."""
    return {**json.loads(json.dumps(spec)), **changes}


def checks(result: Result, subject: str) -> list[dict[str, Any]]:
    """What a check of the account has told about a subject."""
    return [check for check in result.last["checks"] if check["subject"] == subject]


def refused(world: World, code: int, *words: str) -> None:
    """`up` says so with that exit code, and nothing is made."""
    result = world.run("up", "--yes")
    assert result.code == code, result.out + result.err
    for word in words:
        assert word in result.err, result.err
    assert "Traceback" not in result.err
    assert world.inventory() == []


def subscription(world: World) -> str:
    """The one of the sandbox's Azure."""
    return world.sandbox.azure_environment()["ARM_SUBSCRIPTION_ID"]


def ask_arm(world: World, method: str, path: str, body: dict[str, Any] | None = None) -> None:
    """One call of Azure's Resource Manager, as anybody with the subscription's credentials could make it."""
    from azure.core.rest import HttpRequest

    from deployer.realm_sandbox import SandboxRealm

    access = SimpleNamespace(subscription_id=subscription(world), location="westeurope")
    client = SandboxRealm(world.sandbox).clients("azure", None, access).resources
    url = f"/subscriptions/{subscription(world)}{path}?api-version=2021-04-01"
    client.send_request(HttpRequest(method, url, json=body)).raise_for_status()
