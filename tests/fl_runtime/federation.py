"""A whole federation of real processes on loopback, with kits of a small test CA. Everything goes with the context."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

sys.path.insert(0, str(Path(__file__).parents[1]))  # also for the benchmarks and fuzzers, which have no conftest

from waiting import PATIENCE_S, until

from fl_runtime import processes
from fl_runtime.admin import Session
from fl_runtime.signed import canonical
from fl_runtime.status import read_status


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


class TestCA:
    """A CA that makes kits as docs/federation.md describes them."""

    __test__ = False

    def __init__(self, federation: str = "digits") -> None:
        self.federation = federation
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self._name(f"{federation} CA"), self.key, None, [], ca=True)

    def _name(self, common: str, role: str | None = None, title: str | None = None) -> x509.Name:
        parts = [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.federation),
        ]
        if role:
            parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role))
        if title:
            parts.append(x509.NameAttribute(NameOID.TITLE, title))
        return x509.Name(parts)

    def _sign(self, subject, key, issuer, names, *, ca=False, begin=None, days=30) -> x509.Certificate:
        begin = begin or datetime.now(timezone.utc) - timedelta(hours=24)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, 0 if ca else None), True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
            usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), False)
        return builder.sign(self.key, hashes.SHA256())

    def kit(self, folder: Path, name: str, role: str, *, port: int, admin_role: str = "", begin=None, days=30) -> Path:
        (folder / "startup").mkdir(parents=True)
        (folder / "local").mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName]
        names = [x509.RFC822Name(name)] if role == "admin" else [x509.DNSName(f"{name}.{self.federation}.fedspan")]
        subject = self._name(name, role, admin_role or None)
        certificate = self._sign(subject, key, self.certificate.subject, names, begin=begin, days=days)
        pem = serialization.Encoding.PEM
        (folder / "startup/ca.crt").write_bytes(self.certificate.public_bytes(pem))
        (folder / "startup/participant.crt").write_bytes(certificate.public_bytes(pem))
        secret = folder / "startup/participant.key"
        secret.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        secret.chmod(0o600)
        document = {
            "version": 1,
            "federation": self.federation,
            "name": name,
            "role": role,
            "server": {"name": f"server.{self.federation}.fedspan", "hostname": None, "port": port},
            "gpus": None,
            "runtime": "0.1.0",
        }
        if admin_role:
            document["admin_role"] = admin_role
        (folder / "startup/participant.yml").write_text(yaml.safe_dump(document))
        (folder / "local/endpoint.yml").write_text(f"server: 127.0.0.1:{port}\n")
        return folder


def signed(
    ca: TestCA, number: int, *serials: str, federation: str | None = None, days: float = 30
) -> tuple[bytes, bytes]:
    """A list of revoked certificates as the CA signs it: document and signature."""
    now = int(time.time())
    document = canonical(
        {
            "version": 1,
            "federation": federation or ca.federation,
            "number": number,
            "issued": now,
            "not_after": int(now + days * 86400),
            "serials": sorted(serials),
        }
    )
    return document, ca.key.sign(document, ec.ECDSA(hashes.SHA256()))


def serial(kit: Path) -> str:
    """Of a kit's certificate, as lists of revoked ones write it."""
    return f"{x509.load_pem_x509_certificate((kit / 'startup/participant.crt').read_bytes()).serial_number:x}"


class Process:
    """`python -m fl_runtime serve` for one kit."""

    def __init__(self, kit: Path, state: Path, env: Mapping[str, str], labels: tuple[str, ...] = ()) -> None:
        self.kit, self.state = kit, state
        # without what gRPC is told in this process: a participant sets it for itself
        self.env = {**{key: value for key, value in os.environ.items() if not key.startswith("GRPC_")}, **env}
        self._labels = labels
        self.log = state.parent / f"{state.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [sys.executable, "-m", "fl_runtime", "serve", "--kit", str(self.kit), "--state", str(self.state)]
        for label in self._labels:
            argv += ["--label", label]
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(argv, stdout=output, stderr=output, env=self.env, start_new_session=True)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def status(self) -> dict[str, Any]:
        return read_status(self.state)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


class Federation:
    """server, sites and one admin under `root`."""

    def __init__(self, root: Path, sites: int = 3, name: str = "digits") -> None:
        self.root = root
        self.start_s = 0.0  # see start
        self.marks = root / "marks"
        self.port = free_port()
        self.ca = TestCA(name)
        self.env = {"FEDSPAN_BIND": "127.0.0.1", "no_proxy": "127.0.0.1,localhost", "OMP_NUM_THREADS": "1"}
        self.server = self.participant("server", "server")
        self.sites = {f"site-{n + 1}": self.participant(f"site-{n + 1}", "site") for n in range(sites)}
        self.admin_kit = self.ca.kit(
            root / "kits/ana@example.org", "ana@example.org", "admin", port=self.port, admin_role="lead"
        )

    def participant(self, name: str, role: str, ca: TestCA | None = None) -> Process:
        kit = (ca or self.ca).kit(self.root / "kits" / name, name, role, port=self.port)
        # Where scripts of tests leave marks: the only folder besides their own that they may write to.
        self.marks.mkdir(exist_ok=True)
        self.marks.chmod(0o777)
        folders = {"folders": {"write": [str(self.marks)]}}
        (kit / "local/resources.yml").write_text(yaml.safe_dump({"slots": 4, **folders}))
        return Process(kit, self.root / "state" / name, self.env, (f"deployed-by={name}",))

    def data(self, site: str, **paths: Path) -> None:
        document = {"data": {name: str(path) for name, path in paths.items()}}
        (self.sites[site].kit / "local/data.yml").write_text(yaml.safe_dump(document))

    def start(self, *names: str) -> None:
        """Start them and wait until the sites are registered; how long that took is in `start_s` (seconds).

        Whatever is said to take no longer than so and so is compared with that: on a busy machine both take longer.
        """
        began = time.monotonic()
        (self.root / "state").mkdir(exist_ok=True)
        wanted = names or ("server", *self.sites)
        for name in wanted:
            (self.server if name == "server" else self.sites[name]).start()
        for name in wanted:
            if name != "server":
                self.registered(name)
        self.start_s = max(self.start_s, time.monotonic() - began)

    def registered(self, *names: str, timeout: float = PATIENCE_S) -> None:
        def all_there() -> bool:
            sites = self.server.status().get("sites", {})
            return all(sites.get(name, {}).get("registered") for name in names)

        until(
            all_there,
            timeout,
            f"{names} registered; {[self.sites[n].text()[-1500:] for n in names if n in self.sites]}",
        )

    def session(self) -> Session:
        return Session(self.admin_kit)

    def stop(self) -> None:
        for process in [*self.sites.values(), self.server]:
            with contextlib.suppress(Exception):
                process.stop()

    def job(self, name: str, script: str, **document: Any) -> Path:
        """Write a job's folder."""
        folder = self.root / "jobs" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.py").write_text(script)
        (folder / "job.yml").write_text(yaml.safe_dump({"name": name, "script": "train.py", **document}))
        return folder


def job_processes(job: str) -> dict[str, psutil.Process]:
    """A job's living processes by whose they are: a site's name (its script), or `server` (its workflow)."""
    found = {}
    for pid in processes.marked(lambda entry: entry == f"FEDSPAN_JOB={job}".encode()):
        with contextlib.suppress(psutil.NoSuchProcess, KeyError):  # it has ended meanwhile
            process = psutil.Process(pid)
            socket = Path(process.environ()["FEDSPAN_CLIENT_SOCKET"])  # STATE/jobs/JOB/agent.sock
            is_server = "workflow.process" in " ".join(process.cmdline())
            found["server" if is_server else socket.parents[2].name] = process
    return found


def keeper_of(script: psutil.Process) -> psutil.Process:
    """The keeper that a site's script runs below."""
    parent = script.parent()
    if parent is None or "keeper.py" not in " ".join(parent.cmdline()):
        raise psutil.NoSuchProcess(script.pid)
    return parent


@contextlib.contextmanager
def federation(root: Path, sites: int = 3, *, start: bool = True) -> Iterator[Federation]:
    made = Federation(root, sites)
    try:
        if start:
            made.start()
        yield made
    finally:
        made.stop()


def history(view: Mapping[str, Any]) -> list[dict[str, Any]]:
    return json.loads(json.dumps(view["history"]))
