"""What a machine on premises needs before it can be a site: asked of this one by its owner (`fedspan kit check`), or of
another by SSH.

A hospital's IT reads it before day one, so each finding says what was looked at, and what to open or change. Nothing is
installed, nothing is written, nothing is sent but a TLS handshake to the server.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from deployer.errors import FedspanError, KitError, UnreachableError
from deployer.preflight.model import Finding
from startup_kits.kit import Endpoint, Kit

if TYPE_CHECKING:
    from deployer.ssh import Machine

DISK_NEEDED = 1 << 30
CLOCK_SKEW_S = 60.0
"""A clock that is off by more makes certificates invalid at their ends, and logs hard to read."""

TIMEOUT_S = 8


def check_here(kit: Kit, endpoint: Endpoint, state: Path) -> list[Finding]:
    """Everything about this machine and its way to the server, for a kit that lies on it."""
    found = [_signature(kit), *_certificate(kit, time.time()), *_clock_service(), *_local(kit, state)]
    if endpoint.server is None:
        unknown = Finding(
            "way to the server",
            "the server's address is not known yet",
            "unknown",
            next_step="ask the federation's lead for HOST:PORT, then: fedspan kit check KIT --server HOST:PORT",
        )
        return [*found, unknown]
    answer = probe_here(endpoint.server, proxy_of(endpoint), kit.server_name)
    return [*found, *way(kit, answer, endpoint.server)]


def proxy_of(endpoint: Endpoint) -> str | None:
    """The proxy that the runtime would take on this machine: the kit's, else the environment's."""
    from fl_runtime.kit import Endpoint as Dialled
    from fl_runtime.wire.probe import proxy_for

    host, _, port = (endpoint.server or "").rpartition(":")
    return proxy_for(Dialled(host, int(port), endpoint.proxy)) if endpoint.server else endpoint.proxy


def probe_here(server: str, proxy: str | None, name: str) -> dict[str, Any]:
    """Look at the way to the server from this machine; see `deployer.remote.way`."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _script(), server, proxy or "", name, str(TIMEOUT_S)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10 * TIMEOUT_S,
    )
    return _answer(done.stdout)


def check_host(machine: Machine, kit: Kit, server: str | None) -> list[Finding]:
    """The same of a machine that we reach by SSH. Raises UnreachableError; what it lacks is a finding."""
    from deployer.bootstrap import check_facts

    name = kit.name
    try:
        facts = machine.facts()
        check_facts(facts, name)
    except FedspanError as error:
        return [Finding("machine", error.what, "refused", name, error.why or "", error.next_step or "", type(error))]
    version = ".".join(map(str, facts.version))
    found = [Finding("machine", f"Python {version} on {facts.arch}, {facts.cpus} CPUs", "ok", name)]
    if facts.systemd and facts.privileged:
        found.append(Finding("runtime", "will be a systemd unit with a user of its own", "ok", name))
    else:
        what, again = "will be a supervised process, which no reboot starts again", f"after a reboot: fedspan up {name}"
        found.append(Finding("runtime", what, "warning", name, "no systemd, or no root", again))
    before = time.time()
    there = machine.run(["date", "+%s.%N"], timeout_s=30).stdout.strip()
    found.append(clock_finding(float(there) - (before + time.time()) / 2, name))
    if server is None:
        unknown = Finding("way to the server", "the server's address is not known yet", "unknown", name)
        return [*found, *([unknown] if kit.role == "site" else [])]
    proxy = kit.endpoint().proxy or facts.network.get("https_proxy") or facts.network.get("HTTPS_PROXY")
    argv = [facts.python, "-I", "-c", _script(), server, proxy or "", kit.server_name, str(TIMEOUT_S)]
    done = machine.run(argv, check=False, timeout_s=10 * TIMEOUT_S)
    return [*found, *(replace(one, participant=name) for one in way(kit, _answer(done.stdout), server))]


def clock_finding(skew_s: float, name: str = "") -> Finding:
    """What a clock's difference from ours means. Pure."""
    if abs(skew_s) <= CLOCK_SKEW_S:
        return Finding("clock", "agrees with this machine's", "ok", name)
    direction = "ahead" if skew_s > 0 else "behind"
    return Finding(
        "clock", f"is {abs(skew_s):.0f} s {direction}", "refused", name, "certificates are judged by it",
        "sudo timedatectl set-ntp true, and let the machine reach a time server (UDP 123)", KitError,
    )  # fmt: skip


def way(kit: Kit, answer: Mapping[str, Any], server: str) -> list[Finding]:
    """What a look at the way to the server means: proxy, port, and who answers in TLS. Pure but for the kit's files.

    A certificate that the federation's CA has not signed was made by somebody in between, who opens TLS to read it: the
    handshake fails there, whatever the certificate says.
    """
    subject = "way to the server"
    proxy = answer.get("proxy") or ""
    through = f" through the proxy {proxy}" if proxy else ""
    if answer.get("failed"):
        opening = f"open TCP from this machine to {proxy or server}"
        opening += f", and let the proxy CONNECT to {server}" if proxy else ""
        what, why = f"{server} is not reached{through}", str(answer["failed"])
        return [Finding(subject, what, "refused", "", why, opening, UnreachableError)]
    found = [Finding(subject, f"{server} is reached{through}", "ok")]
    encoded = answer.get("certificate")
    if not encoded:
        why = str(answer.get("tls") or "it closed the connection")
        return [*found, _no("TLS", f"no TLS at {server}", why, f"except {server} from whatever filters TLS there")]
    shown = x509.load_der_x509_certificate(base64.b64decode(encoded))
    authority = x509.load_pem_x509_certificate((kit.path / "startup" / "ca.crt").read_bytes())
    try:
        shown.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        issuer = shown.issuer.rfc4514_string() or "nobody named"
        why = f"the certificate shown for {server} is signed by {issuer}, not by the federation's CA"
        mend = f"except {server} from TLS inspection: both sides authenticate each other inside it"
        return [*found, _no("TLS", "somebody on the way opens it", why, mend)]
    return [*found, Finding("TLS", "the server's own certificate comes through: nobody opens TLS on the way", "ok")]


def _no(subject: str, what: str, why: str, next_step: str, error: type[FedspanError] = UnreachableError) -> Finding:
    """What can't work as it is."""
    return Finding(subject, what, "refused", "", why, next_step, error)


def to_open(kit: Kit, endpoint: Endpoint) -> list[str]:
    """What the firewall in front of a site has to let through, in words for its keeper. Pure."""
    server = endpoint.server or f"the server's address, port {kit.port}"
    lines = [f"outwards: TCP to {server} (gRPC over TLS 1.3, both sides authenticated; long-lived)"]
    if endpoint.proxy:
        lines = [f"outwards: TCP to the proxy {endpoint.proxy}, which may CONNECT to {server}"]
    lines += [f"no TLS inspection on {server}", "inwards: nothing"]
    return [*lines, "outwards, unless a time service is inside: UDP 123"]


def _signature(kit: Kit) -> Finding:
    try:
        Kit.verify(kit.path)
    except FedspanError as error:
        return Finding("kit", error.what, "refused", "", error.why or "", error.next_step or "", KitError)
    return Finding("kit", f"{kit.name} of {kit.federation}: every file is as it was signed", "ok")


def _certificate(kit: Kit, now: float) -> Iterable[Finding]:
    certificate = kit.certificate
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if now < begins:
        why = f"the certificate begins {begins - now:.0f} s from now"
        yield _no("clock", "is before the kit was made", why, "sudo timedatectl set-ntp true", KitError)
    elif now > ends:
        why = "or this machine's clock is wrong"
        yield _no("kit", "its certificate has expired", why, "ask the federation's lead for a renewed kit", KitError)
    else:
        yield Finding("certificate", f"valid for {(ends - now) / 86400:.0f} days more", "ok")


def _clock_service() -> Iterable[Finding]:
    """Whether somebody keeps this machine's clock, where systemd can tell."""
    if shutil.which("timedatectl") is None:
        yield Finding("clock", "nobody here can tell whether it is kept", "unknown", why="no timedatectl")
        return
    argv = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        done = None
    said = done.stdout.strip() if done is not None else ""
    if said == "yes":
        yield Finding("clock", "is kept by a time service", "ok")
    elif said == "no":
        yield Finding("clock", "is kept by nobody", "warning", next_step="sudo timedatectl set-ntp true")
    else:
        yield Finding("clock", "nobody here can tell whether it is kept", "unknown", why="timedatectl gave no answer")


def _local(kit: Kit, state: Path) -> Iterable[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", version, "ok" if sys.version_info >= (3, 10) else "refused")
    folder = next(path for path in (state, *state.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    enough = free >= DISK_NEEDED
    yield Finding("disk", f"{free >> 30} GiB free for {state}", "ok" if enough else "refused",
                  next_step="" if enough else "make room, or name another place: --state DIR")  # fmt: skip
    for name, path in kit.data().items():
        there = Path(path).exists()
        yield Finding("data", f"{name} at {path}" + ("" if there else " is not there"), "ok" if there else "warning",
                      next_step="" if there else "start.sh --data NAME=PATH, once it is there")  # fmt: skip


def _script() -> str:
    return resources.files("deployer.remote").joinpath("way.py").read_text(encoding="utf-8")


def _answer(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {"failed": f"no answer that can be read: {text[-200:]!r}"}
    return answer if isinstance(answer, dict) else {"failed": "no answer that can be read"}
