"""Reaching a machine that may still be booting, and only the machine that was made.

What is retried, until the deadline: an address that refuses, does not answer or resets, a port that accepts and says
nothing or closes before its banner (sshd starting, or a proxy before it), a name that does not resolve yet. What is
never retried: a host key other than the pinned one.

A refused login is retried for `AUTH_GRACE_S` after the first refusal only: on a booting cloud machine sshd answers
some seconds before cloud-init has written the user's `authorized_keys` (and OpenSSH says "System is booting up" by
closing), while on a booted machine a refused key stays refused, and waiting for the deadline would hide that.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import paramiko

from deployer.errors import FedspanError, HostKeyError, UnreachableError
from deployer.ssh.agent import UNUSABLE, candidates
from deployer.ssh.exchange import PACKET
from deployer.ssh.login import LoginTransport, authenticate, unanswered
from deployer.ssh.pins import HostKeyPin, fingerprint, host_label, read_pins
from deployer.ssh.session import WINDOW

DIAL_TIMEOUT_S = 10.0
"""One attempt: TCP connect, then banner and key exchange, each at most this long."""

AUTH_GRACE_S = 20.0
"""A login may be refused this long after the first refusal before it counts as refused."""

KEEPALIVE_S = 15
"""A message this often: NATs and stateful firewalls of both clouds drop idle flows after some minutes (Azure: 4)."""

RETRY_FIRST_S, RETRY_MOST_S = 0.2, 3.0

# aes128-gcm is the fastest here: 230 MB/s against 170 (aes128-ctr + hmac) in one process on a 2-core machine. The
# rest stay behind it for servers that lack it.
_FIRST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

OnWait = Callable[[str, float], None]
"""Called before each new attempt with (what is being waited for, seconds waited so far)."""

# Without a handler of its own paramiko's tracebacks of ordinary refusals would reach the user's terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class _NotYet(Exception):
    """An attempt that may go better a moment later."""


class _Refused(Exception):
    """The machine refused the login."""


def open_transport(
    address: str,
    port: int,
    user: str,
    key_path: Path,
    known_hosts: Path | Sequence[Path],
    *,
    deadline_s: float = 300.0,
    auth_grace_s: float = AUTH_GRACE_S,
    on_wait: OnWait | None = None,
    name: str | None = None,
    via: paramiko.Transport | None = None,
    agent: bool = False,
    also: Sequence[paramiko.PKey] = (),
) -> paramiko.Transport:
    """An authenticated connection; see the module for what is retried.

    Args:
        address, port, user: where, and as whom.
        key_path: a private key (OpenSSH format, no passphrase). No other key, no prompt.
        known_hosts: file, or files, of pinned host keys.
        deadline_s, on_wait: seconds until it is given up; told before each new attempt.
        name: participant, for messages.
        via: a jump host's connection, through which this one goes.
        agent: try the keys of the operator's SSH agent first.
        also: keys to try after that.

    Raises:
        HostKeyError: no key is pinned, or the machine shows another one.
        UnreachableError: the deadline passed, or the key was refused.
    """
    files = [known_hosts] if isinstance(known_hosts, Path) else list(known_hosts)
    pins = [pin for file in files for pin in read_pins(file, address, port)]
    if not pins:
        raise no_pin(address, port, files, name)
    keys = [*candidates(key_path, agent, lambda path: _load_key(path, name)), *also]
    started = time.monotonic()
    refused_since: float | None = None
    pause = RETRY_FIRST_S
    while True:
        try:
            return _attempt(address, port, user, keys, pins, files, name, via)
        except _Refused as error:
            reason: Exception = error
            refused_since = time.monotonic() if refused_since is None else refused_since
            if time.monotonic() + pause - refused_since > auth_grace_s:
                raise _login_refused(address, port, user, key_path, name) from error
        except _NotYet as error:
            reason = error
        waited = time.monotonic() - started
        if waited + pause > deadline_s:
            raise _gave_up(address, port, reason, waited, name) from reason
        if on_wait is not None:
            on_wait(str(reason), waited)
        time.sleep(pause)
        pause = min(RETRY_MOST_S, pause * 1.5)


def scan_host_key(
    address: str,
    port: int,
    *,
    timeout_s: float = DIAL_TIMEOUT_S,
    name: str | None = None,
    via: paramiko.Transport | None = None,
) -> str:
    """The host key that a machine shows, as one public line. Shown to a user who compares it; never pinned unseen.

    Raises:
        UnreachableError: nothing answers.
    """
    try:
        transport = _dial(address, port, timeout_s, ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512"], via)
    except _NotYet as error:
        raise _gave_up(address, port, error, 0.0, name) from error
    try:
        key = transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"
    finally:
        transport.close()


def no_pin(address: str, port: int, files: Sequence[Path], name: str | None) -> HostKeyError:
    """The error for a machine of which no host key is known."""
    return HostKeyError(
        f"no host key is pinned for {host_label(address, port)}",
        participant=name,
        why="the deployment never made this machine, or its pin was dropped with it"
        + (f" (looked in {', '.join(map(str, files))})" if files else ""),
        next_step=f"compare `ssh-keyscan -t ed25519 -p {port} {address}` with the key on the machine "
        "(/etc/ssh/ssh_host_ed25519_key.pub), then append its line to "
        + (str(files[0]) if files else "the deployment's known_hosts"),
    )


def _attempt(
    address: str,
    port: int,
    user: str,
    keys: Sequence[paramiko.PKey],
    pins: Sequence[HostKeyPin],
    files: Sequence[Path],
    name: str | None,
    via: paramiko.Transport | None,
) -> paramiko.Transport:
    transport = _dial(address, port, DIAL_TIMEOUT_S, [pin.key_type for pin in pins], via)
    try:
        shown = transport.get_remote_server_key()
        if not any(pin.key_type == shown.get_name() and pin.blob == shown.asbytes() for pin in pins):
            raise _other_key(address, port, f"{shown.get_name()} {shown.get_base64()}", pins, files, name)
        transport.auth_timeout = DIAL_TIMEOUT_S
        try:
            authenticate(transport, user, keys)
        except paramiko.AuthenticationException as error:
            if unanswered(error):
                raise _NotYet("the login was not answered") from error
            if transport.is_active():
                raise _Refused(f"{user}'s key is refused") from error
            raise _NotYet("the connection was closed during the login") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise _NotYet(f"the login was cut off ({error})") from error
        transport.set_keepalive(KEEPALIVE_S)
    except BaseException:
        transport.close()
        raise
    return transport


def _dial(
    address: str, port: int, timeout_s: float, key_types: Sequence[str], via: paramiko.Transport | None = None
) -> paramiko.Transport:
    """TCP (or a channel of the jump host), banner and key exchange; any failure is worth another attempt."""
    sock: socket.socket | paramiko.Channel
    try:
        if via is not None:
            sock = via.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=timeout_s)
        else:
            sock = socket.create_connection((address, port), timeout=timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise _NotYet(_dial_reason(address, port, error)) from error
    except paramiko.SSHException as error:
        raise _NotYet(f"the jump host can't reach port {port} there ({error})") from error
    transport = LoginTransport(sock, default_window_size=WINDOW, default_max_packet_size=PACKET)
    try:
        options = transport.get_security_options()
        ciphers = options.ciphers
        options.ciphers = [
            *(cipher for cipher in _FIRST_CIPHERS if cipher in ciphers),
            *(cipher for cipher in ciphers if cipher not in _FIRST_CIPHERS),
        ]
        wanted = [kind for kind in options.key_types if kind in _signatures(key_types)]
        if wanted:
            options.key_types = wanted
        transport.banner_timeout = timeout_s
        transport.handshake_timeout = timeout_s
        transport.start_client(timeout=timeout_s)
        if not transport.initial_kex_done:  # it returns then as if nothing was wrong
            raise paramiko.SSHException("the key exchange takes too long")
    except (paramiko.SSHException, EOFError, OSError) as error:
        transport.close()
        raise _NotYet(
            f"port {port} is open, but no SSH server answers yet ({error or type(error).__name__})"
        ) from error
    except BaseException:
        transport.close()
        raise
    return transport


def _signatures(key_types: Sequence[str]) -> set[str]:
    """Signature algorithms for key types: an RSA key signs by SHA-2 names."""
    rsa = {"rsa-sha2-512", "rsa-sha2-256"}
    return {kind for key in key_types for kind in (rsa if key.startswith(("ssh-rsa", "rsa-")) else {key})}


def _dial_reason(address: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name {address} does not resolve"
    if isinstance(error, (TimeoutError, socket.timeout)) or error.errno == errno.ETIMEDOUT:
        return f"port {port} does not answer"
    if error.errno == errno.ECONNREFUSED:
        return f"port {port} refuses connections"
    return f"port {port} cannot be reached ({error.strerror or error})"


def _load_key(path: Path, name: str | None) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(path)
    except UNUSABLE as error:
        raise UnreachableError(
            f"the login key {path} cannot be used",
            participant=name,
            why="it has a passphrase"
            if isinstance(error, (paramiko.PasswordRequiredException, TypeError))
            else str(error),
            next_step="name a private key without a passphrase (`key:` in federation.yml for a host)",
        ) from error


def _gave_up(address: str, port: int, reason: Exception, waited: float, name: str | None) -> FedspanError:
    after = f" within {waited:.0f} s" if waited >= 1 else ""
    return UnreachableError(
        f"{address} cannot be reached by SSH{after}",
        participant=name,
        why=str(reason),
        next_step="check that the machine runs and that its SSH port is open to your address "
        "(`ssh_from` in federation.yml), then run the same command again",
    )


def _login_refused(address: str, port: int, user: str, key_path: Path, name: str | None) -> FedspanError:
    public = ""
    with contextlib.suppress(OSError, IndexError, ValueError):
        public = f" ({fingerprint(key_path.with_name(key_path.name + '.pub').read_text())})"
    return UnreachableError(
        f"{host_label(address, port)} refuses the login",
        participant=name,
        why=f"{user} is not allowed in with the key {key_path}{public}",
        next_step=f"put {key_path}.pub into ~{user}/.ssh/authorized_keys on the machine, or correct `user` and `key`",
    )


def _other_key(
    address: str, port: int, shown: str, pins: Sequence[HostKeyPin], files: Sequence[Path], name: str | None
) -> HostKeyError:
    expected = " or ".join(pin.fingerprint for pin in pins)
    return HostKeyError(
        f"{host_label(address, port)} shows another SSH host key than the one that is pinned",
        participant=name,
        why=f"expected {expected}, seen {fingerprint(shown)} ({shown.split()[0]}); "
        "either the machine was replaced behind fedspan's back, or someone stands in between; nothing was sent",
        next_step=f"if you replaced the machine yourself: ssh-keygen -f {files[0]} -R '{host_label(address, port)}', "
        "then pin the new key; otherwise tell whoever runs that network",
    )
