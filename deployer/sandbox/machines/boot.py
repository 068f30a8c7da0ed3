"""What a machine does with its user-data at first boot, worked out without touching anything.

Follows cloud-init where a federation depends on it: accounts and their keys, the SSH host key, written files, sshd's
port, the mounting of the state volume. Whatever a cloud-init would not understand has the effect that it has there:
no account, no key, a random host key, and a line in the boot log. Commands (`runcmd`, `bootcmd`, `packages`) are *not*
run: this machine has no root. Their place is taken by what they are known to bring about (sshd's port, the mount).
"""

from __future__ import annotations

import base64
import binascii
import gzip
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

DEFAULT_SSH_PORT = 22
STATE_MOUNT = "/var/lib/fedspan"
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_KEY_TYPES = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")
_HOST_KEYS = ("ed25519", "ecdsa", "rsa")


@dataclass(frozen=True)
class BootFile:
    """One file that user-data writes: `path` is absolute on the machine."""

    path: str
    content: bytes
    mode: int
    append: bool = False


@dataclass(frozen=True)
class BootPlan:
    """The outcome of the first boot."""

    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # account -> authorized public keys
    host_key: str | None = None  # private key in OpenSSH format; None: the machine makes one of its own
    host_key_type: str = "ed25519"
    ssh_ports: tuple[int, ...] = (DEFAULT_SSH_PORT,)
    files: tuple[BootFile, ...] = ()
    mounts_state: bool = False  # whether an attached volume gets mounted at STATE_MOUNT
    hostname: str | None = None
    log: tuple[str, ...] = ()  # what the console shows


def plan_boot(user_data: str, login_keys: Iterable[tuple[str, str]] = (), default_user: str = "ubuntu") -> BootPlan:
    """Reads cloud-config and the keys that the cloud itself hands over (Azure's osProfile, AWS's key pair)."""
    log: list[str] = []
    config = _parse(user_data, log)
    users = _users(config, tuple(login_keys), default_user, log)
    files = _files(config, log)
    key_type, host_key = _host_key(config, log)
    for kind in ("bootcmd", "runcmd", "packages"):
        count = len(config[kind]) if isinstance(config.get(kind), list) else 0
        if count:
            log.append(f"cloud-init: {kind}: {count} not run (this machine is a process without root)")
    hostname = config.get("hostname")
    return BootPlan(
        users=users,
        host_key=host_key,
        host_key_type=key_type,
        ssh_ports=_ssh_ports(files),
        files=files,
        mounts_state=_mounts_state(config, files),
        hostname=hostname if isinstance(hostname, str) else None,
        log=tuple(log),
    )


def _parse(user_data: str, log: list[str]) -> dict[str, Any]:
    import yaml  # here, because the sandbox's client imports this module for its words

    text = user_data.lstrip("\ufeff")
    if not text.strip():
        log.append("cloud-init: no user-data")
        return {}
    first = text.splitlines()[0].rstrip()
    if first != "#cloud-config":
        log.append(f"cloud-init: user-data is not cloud-config (its first line is {first[:60]!r}): ignored")
        return {}
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        log.append(f"cloud-init: failed to parse user-data: {' '.join(str(error).split())}: ignored")
        return {}
    if config is None:
        return {}
    if not isinstance(config, dict):
        log.append("cloud-init: user-data is no mapping: ignored")
        return {}
    return {str(key): value for key, value in config.items()}


def _users(
    config: Mapping[str, Any], login_keys: tuple[tuple[str, str], ...], default_user: str, log: list[str]
) -> dict[str, tuple[str, ...]]:
    """Accounts and keys. The image's default user exists unless `users` is given without "default"."""
    info = config.get("system_info")
    if isinstance(info, dict) and isinstance(info.get("default_user"), dict):
        default_user = str(info["default_user"].get("name", default_user))
    keys: dict[str, list[str]] = {}
    listed = config.get("users")
    if listed is None:
        keys[default_user] = []
    elif not isinstance(listed, list):
        log.append("cloud-init: users is no list: ignored")
        keys[default_user] = []
    else:
        for entry in listed:
            if entry == "default":
                keys.setdefault(default_user, [])
            elif isinstance(entry, str):
                keys.setdefault(entry, [])
            elif isinstance(entry, dict) and _USER_NAME.fullmatch(str(entry.get("name", ""))):
                keys.setdefault(str(entry["name"]), []).extend(_keys(entry.get("ssh_authorized_keys"), log))
            else:
                log.append(f"cloud-init: users: entry without a valid name: {str(entry)[:60]!r}")
    if default_user in keys:
        keys[default_user].extend(_keys(config.get("ssh_authorized_keys"), log))
    for user, key in login_keys:
        # The agent of the cloud makes the account that osProfile names; a key pair goes to the image's default user.
        if user == default_user and user not in keys:
            log.append(f"cloud-init: the key pair is for {user}, which user-data did not make")
            continue
        keys.setdefault(user, []).extend(_keys([key], log))
    if "root" in keys:
        log.append("cloud-init: root: login disabled (disable_root)")
        del keys["root"]
    for user, its in keys.items():
        log.append(f"ci-info: {len(its)} authorized key{'' if len(its) == 1 else 's'} for user {user}")
    return {user: tuple(dict.fromkeys(its)) for user, its in keys.items()}


def _keys(value: object, log: list[str]) -> list[str]:
    if value is None:
        return []
    found = []
    for key in value if isinstance(value, list) else [value]:
        text = str(key).strip()
        if text.startswith(_KEY_TYPES) and len(text.split()) >= 2:
            found.append(text)
        else:
            log.append(f"cloud-init: not an SSH public key: {text[:30]!r}")
    return found


def _host_key(config: Mapping[str, Any], log: list[str]) -> tuple[str, str | None]:
    given = config.get("ssh_keys")
    if isinstance(given, dict):
        for kind in _HOST_KEYS:
            private = given.get(f"{kind}_private")
            if isinstance(private, str) and "PRIVATE KEY" in private:
                return kind, private.strip() + "\n"
        log.append("cloud-init: ssh_keys holds no private key that sshd can read")
    return "ed25519", None


def _files(config: Mapping[str, Any], log: list[str]) -> tuple[BootFile, ...]:
    entries = config.get("write_files")
    if entries is None:
        return ()
    if not isinstance(entries, list):
        log.append("cloud-init: write_files is no list: ignored")
        return ()
    files = []
    for entry in entries:
        if not isinstance(entry, dict) or not str(entry.get("path", "")).startswith("/"):
            log.append(f"cloud-init: write_files: entry without an absolute path: {str(entry)[:60]!r}")
            continue
        try:
            content = _content(entry)
            mode = int(str(entry.get("permissions", "0644")), 8)
        except (ValueError, OSError, EOFError, zlib.error) as error:  # binascii.Error and gzip's are among them
            log.append(f"cloud-init: write_files: {entry['path']}: {error}")
            continue
        files.append(BootFile(str(entry["path"]), content, mode & 0o7777, bool(entry.get("append", False))))
    return tuple(files)


def _content(entry: Mapping[str, Any]) -> bytes:
    content = entry.get("content", "")
    data = content if isinstance(content, bytes) else str(content).encode()
    encoding = str(entry.get("encoding", "text/plain")).lower()
    if "b64" in encoding or "base64" in encoding:
        try:
            data = base64.b64decode(data, validate=False)
        except binascii.Error as error:
            raise ValueError(f"not base64: {error}") from error
    if encoding.startswith(("gz", "gzip")):
        data = gzip.decompress(data)
    return data


def _ssh_ports(files: Iterable[BootFile]) -> tuple[int, ...]:
    """sshd's ports: a drop-in of ssh.socket wins (Ubuntu 24.04 starts sshd by it), then sshd_config's `Port`."""
    socket_ports: list[int] | None = None
    sshd_ports: list[int] = []
    for file in files:
        text = file.content.decode(errors="replace")
        if re.fullmatch(r"/etc/systemd/system/ssh\.socket\.d/[^/]+\.conf", file.path):
            for value in re.findall(r"(?m)^[ \t]*ListenStream[ \t]*=[ \t]*(.*?)[ \t]*$", text):
                # An empty value forgets the ports before it; without one the image's own port 22 stays.
                base = [DEFAULT_SSH_PORT] if socket_ports is None else socket_ports
                socket_ports = [*base, _port(value)] if value else []
        elif re.fullmatch(r"/etc/ssh/sshd_config(\.d/[^/]+\.conf)?", file.path):
            sshd_ports += [_port(value) for value in re.findall(r"(?mi)^[ \t]*Port[ \t=]+(\d+)[ \t]*$", text)]
    ports = socket_ports if socket_ports is not None else sshd_ports or [DEFAULT_SSH_PORT]
    return tuple(dict.fromkeys(port for port in ports if port))


def _port(value: str) -> int:
    number = value.rsplit(":", 1)[-1]
    return int(number) if number.isdigit() and 0 < int(number) < 65536 else 0


def _mounts_state(config: Mapping[str, Any], files: Iterable[BootFile]) -> bool:
    """Whether the state volume would get mounted: by `mounts`, or by a written script that a unit or runcmd starts."""
    mounts = config.get("mounts")
    if isinstance(mounts, list) and any(
        isinstance(entry, list) and len(entry) > 1 and str(entry[1]).rstrip("/") == STATE_MOUNT for entry in mounts
    ):
        return True
    commands = str(cast("object", config.get("runcmd", "")))
    scripts = [file for file in files if STATE_MOUNT.encode() in file.content and b"mount " in file.content]
    units = [file for file in files if file.path.startswith("/etc/systemd/system/")]
    for script in scripts:
        started_by = [unit.path.rsplit("/", 1)[-1] for unit in units if script.path.encode() in unit.content]
        if script.path in commands or any(unit in commands for unit in started_by):
            return True
    return False
