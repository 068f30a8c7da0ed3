"""Why there is no connection. gRPC says "Socket closed" or "failed to connect" for all of it; this asks the sockets.

One probe after a failure, never in a loop: DNS, TCP (through the proxy if one is set), then TLS with the standard
library, whose errors name the cause.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass

from cryptography import x509

from fl_runtime.kit import Endpoint, Kit


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, why, and what to do. `kind` is stable: dns, refused, timeout, proxy, clock, expired, name, ca."""

    kind: str
    what: str
    why: str
    next_step: str


def proxy_for(endpoint: Endpoint) -> str | None:
    """The proxy that gRPC would take: endpoint.yml's, else the environment's, unless no_proxy names the host."""
    if endpoint.proxy:
        return endpoint.proxy
    if proxy_bypass(endpoint.host):
        return None
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        if os.environ.get(name):
            return os.environ[name]
    return None


def probe(kit: Kit, endpoint: Endpoint, timeout: float = 5.0) -> Diagnosis | None:
    """Dial once with plain sockets. None when nothing is wrong now (the failure was passing, or above TLS)."""
    clock = _own_window(kit)
    if clock is not None:
        return clock
    proxy = proxy_for(endpoint)
    dial = f"{endpoint.host}:{endpoint.port}"
    try:
        connection = _through(proxy, endpoint, timeout) if proxy else _straight(endpoint, timeout)
    except _Problem as problem:
        return problem.diagnosis
    with connection:
        return _handshake(kit, connection, dial)


def answers(endpoint: Endpoint, timeout: float) -> bool:
    """Whether a TCP connection towards the server (to the proxy, where there is one) can be made in time."""
    proxy = proxy_for(endpoint)
    host, port = endpoint.host, endpoint.port
    try:
        if proxy:
            host, port, _ = _parts(proxy)
        socket.create_connection((host, port), timeout).close()
    except (OSError, ValueError):
        return False
    return True


def shown(proxy: str) -> str:
    """A proxy for people and logs: without the user and the password that its URL may hold."""
    try:
        host, port, _ = _parts(proxy)
    except ValueError:
        return "(its address makes no sense)"
    return f"{host}:{port}"


def _parts(proxy: str) -> tuple[str, int, str]:
    """Host, port, and `user:password` or nothing.

    Raises:
        ValueError: it is no address.
    """
    parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or 3128, unquote(parts.netloc.rpartition("@")[0])


class _Problem(Exception):
    def __init__(self, kind: str, what: str, why: str, next_step: str) -> None:
        super().__init__(what)
        self.diagnosis = Diagnosis(kind, what, why, next_step)


def _own_window(kit: Kit) -> Diagnosis | None:
    certificate = x509.load_pem_x509_certificate(kit.certificate)
    now = datetime.now(timezone.utc)
    if now < certificate.not_valid_before_utc:
        return Diagnosis(
            "clock",
            "This machine's clock is before the start of the kit's certificate",
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, it begins {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}",
            "set the clock (timedatectl set-ntp true)",
        )
    if now > certificate.not_valid_after_utc:
        return Diagnosis(
            "expired",
            "The kit's certificate has expired",
            f"it ended {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, the clock says {now:%Y-%m-%d %H:%M}",
            "ask for a renewed kit (fedspan provision), or set the clock",
        )
    return None


def _straight(endpoint: Endpoint, timeout: float) -> socket.socket:
    return _tcp(endpoint.host, endpoint.port, timeout, "the server", "local/endpoint.yml")


def _tcp(host: str, port: int, timeout: float, whom: str, where: str) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _Problem(
            "dns" if whom == "the server" else "proxy",
            f"The name of {whom}, {host}, is not known to DNS",
            str(error),
            f"check the address in {where}, or this machine's DNS",
        ) from None
    last: OSError | None = None
    for family, kind, protocol, _, address in found:
        attempt = socket.socket(family, kind, protocol)
        attempt.settimeout(timeout)
        try:
            attempt.connect(address)
            return attempt
        except OSError as error:
            attempt.close()
            last = error
    named = f"{host}:{port}"
    if isinstance(last, ConnectionRefusedError):
        raise _Problem(
            "refused" if whom == "the server" else "proxy",
            f"{named} refuses connections",
            f"{whom} does not run there, or not yet",
            f"start it, or correct {where}",
        )
    if isinstance(last, (socket.timeout, TimeoutError)):
        raise _Problem(
            "timeout" if whom == "the server" else "proxy",
            f"{named} does not answer",
            "a firewall drops the packets, or the machine is off",
            "let this site's address in: fedspan allow SITE CIDR",
        )
    raise _Problem("network", f"{named} can't be reached", str(last), f"check the network and {where}")


def _through(proxy: str, endpoint: Endpoint, timeout: float) -> socket.socket:
    try:
        host, port, login = _parts(proxy)
    except ValueError:
        what = "The proxy's address makes no sense"
        raise _Problem("proxy", what, "it is not of the form http://HOST:PORT", "check `proxy`") from None
    connection = _tcp(host, port, timeout, "the proxy", "local/endpoint.yml")
    auth = f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n" if login else ""
    try:
        request = f"CONNECT {endpoint.address} HTTP/1.1\r\nHost: {endpoint.address}\r\n{auth}\r\n"
        connection.sendall(request.encode())
        reply = b""
        while b"\r\n\r\n" not in reply and len(reply) < 65536:
            piece = connection.recv(4096)
            if not piece:
                break
            reply += piece
    except OSError as error:
        connection.close()
        raise _Problem("proxy", f"The proxy {shown(proxy)} does not answer", str(error), "check `proxy`") from None
    status = reply.split(b"\r\n", 1)[0].decode("latin-1")
    if " 200" not in status:
        connection.close()
        raise _Problem(
            "proxy",
            f"The proxy {host}:{port} does not let us to {endpoint.address}",
            status or "it closed the connection",
            "ask its owner to allow CONNECT to that address and port",
        )
    return connection


def _handshake(kit: Kit, connection: socket.socket, dial: str) -> Diagnosis | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=kit.ca.decode())
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # ssl reads a chain from files only; 0600
        file.write(kit.key + b"\n" + kit.certificate)
        file.flush()
        context.load_cert_chain(file.name)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=kit.server_name) as tls:
            # In TLS 1.3 the server judges our certificate after our handshake is done: its alert comes with a read.
            tls.settimeout(1.0)
            # A server that takes us begins to speak HTTP/2 at once; one that does not just closes.
            with contextlib.suppress(TimeoutError):
                if not tls.recv(1):
                    return _unwanted(dial)
            return None
    except ssl.SSLCertVerificationError as error:
        return _verification(kit, error, dial)
    except ssl.SSLError as error:
        text = str(error)
        if "UNKNOWN_CA" in text or "CERTIFICATE" in text or "certificate" in text:
            return _unwanted(dial)
        if not isinstance(error, ssl.SSLEOFError):
            return Diagnosis("tls", f"{dial} does not speak our TLS", text, "check the port in local/endpoint.yml")
        return _closed(dial, text)
    except OSError as error:
        return _closed(dial, str(error) or type(error).__name__)


def _closed(dial: str, why: str) -> Diagnosis:
    return Diagnosis(
        "closed",
        f"{dial} closed the connection during the handshake",
        why,
        "check the port in local/endpoint.yml, and firewalls on the way",
    )


def _unwanted(dial: str) -> Diagnosis:
    return Diagnosis(
        "ca",
        f"The server at {dial} does not accept this kit's certificate",
        "another CA signed it, or it is not valid there by the server's clock",
        "compare `fedspan kit show` here with the server's CA fingerprint",
    )


def _verification(kit: Kit, error: ssl.SSLCertVerificationError, dial: str) -> Diagnosis:
    if error.verify_code in (9, 10):  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED
        now = datetime.now(timezone.utc)
        skew = "has expired" if error.verify_code == 10 else "is not valid yet"
        return Diagnosis(
            "clock",
            f"The certificate of the server at {dial} {skew} by this machine's clock",
            f"the clock says {now:%Y-%m-%d %H:%M} UTC; kits are backdated by {timedelta(hours=24)}",
            "set the clock (timedatectl set-ntp true), or renew the server's kit",
        )
    if error.verify_code == 62:  # X509_V_ERR_HOSTNAME_MISMATCH
        return Diagnosis(
            "name",
            f"{dial} is not the server of {kit.federation}",
            f"its certificate is not for {kit.server_name}",
            "correct local/endpoint.yml",
        )
    return Diagnosis(
        "ca",
        f"{dial} is not the server of {kit.federation}",
        f"its certificate is from another CA ({error.verify_message})",
        "correct local/endpoint.yml; if the server was provisioned anew, get a new kit",
    )
