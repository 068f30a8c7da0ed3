"""The runtime's systemd unit as text, and nothing else. `systemd-analyze verify` accepts it (a test asks it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

UNIT_NAME = "fedspan-runtime.service"
UNITS = "/etc/systemd/system"
UNIT_PATH = f"{UNITS}/{UNIT_NAME}"
RUNTIME_USER = "fedspan-runtime"
"""Owns nothing but the state and the kit; the login user `fedspan` may sudo, this one may not."""

KIT_REFUSED = 4
"""Exit code of a kit that is not to be believed: starting it again would not make it better."""

STOP_S = 30
"""A clean stop of hub or agent with its jobs; afterwards systemd kills what is left."""


GPU_NODES = (
    "/bin/sh",
    "-c",
    "command -v nvidia-modprobe >/dev/null || exit 0; nvidia-smi -L >/dev/null; nvidia-modprobe -u -c 0",
)
"""Makes NVIDIA's device nodes, as root and before each start. After a reboot they come with the first program that
asks for them, through a set-uid helper: no use to a service without new privileges. Nothing without a driver."""


METADATA = "169.254.169.254"
"""Where both clouds' metadata services tell whoever asks a machine's own credentials: nothing for a job."""


@dataclass(frozen=True)
class UnitSpec:
    """What differs between units.

    Attributes:
        description: for `systemctl status`.
        argv: the command, the first word an absolute path.
        user: system user that it runs as.
        state: absolute path, the only one it may write.
        port: lowest port it listens on, None for none; below 1024 it gets the right to bind it, and no other.
        after: further units that have to run before (the state volume's).
        environment: variables, nothing secret: units can be read by everybody.
        check: command that has to succeed before each start (the kit's verification), empty for none.
        metadata: whether it may ask a cloud's metadata service: on machines that are somebody's own, jobs may use a
            role that their owner has given them.
    """

    description: str
    argv: Sequence[str]
    user: str
    state: str
    port: int | None = None
    after: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    check: Sequence[str] = ()
    metadata: bool = False


def unit_text(spec: UnitSpec) -> str:
    """The unit's text.

    Sandboxing: no new privileges, the file system read-only but for the state, a private /tmp, homes readable (data
    may lie there) but not writable. `Delegate` and `OOMPolicy=continue`, because jobs are processes in the unit's
    cgroup: one that runs out of memory must not take the runtime along. No `PrivateDevices` and no
    `MemoryDenyWriteExecute`: GPUs and the compilers of numeric libraries need both. Of the namespaces those that jobs
    are isolated with, of the sockets those of networks and of libraries that list interfaces (netlink), and no metadata
    service of a cloud, which hands out the machine's own identity. No start limit: a runtime that cannot reach anything
    for a night has to come up in the morning.
    """
    capability = "CAP_NET_BIND_SERVICE" if spec.port is not None and spec.port < 1024 else ""
    lines = [
        "# Written by fedspan; `fedspan up` writes it anew.",
        "[Unit]",
        f"Description={_plain(spec.description)}",
        "Wants=network-online.target",
        " ".join(["After=network-online.target", *spec.after]),
        *(f"Requires={unit}" for unit in spec.after),
        f"RequiresMountsFor={_path(spec.state)}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        f"User={spec.user}",
        f"Group={spec.user}",
        f"WorkingDirectory={_path(spec.state)}",
        *(
            f"Environment={unit_word(f'{key}={value}', command=False)}"
            for key, value in sorted(spec.environment.items())
        ),
        f"ExecStartPre=-+{' '.join(unit_word(word) for word in GPU_NODES)}",
        *(f"ExecStartPre={' '.join(unit_word(word) for word in argv)}" for argv in [spec.check] if argv),
        f"ExecStart={' '.join(unit_word(word) for word in spec.argv)}",
        "Restart=on-failure",
        f"RestartPreventExitStatus={KIT_REFUSED}",
        "RestartSec=2",
        "KillMode=mixed",
        "KillSignal=SIGTERM",
        f"TimeoutStopSec={STOP_S}",
        "Delegate=yes",
        "OOMPolicy=continue",
        "LimitNOFILE=65536",
        "UMask=0077",
        "NoNewPrivileges=yes",
        f"CapabilityBoundingSet={capability}",
        f"AmbientCapabilities={capability}",
        "ProtectSystem=strict",
        f"ReadWritePaths={_path(spec.state)}",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "PrivateMounts=yes",
        "RemoveIPC=yes",
        "ProtectProc=invisible",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "RestrictSUIDSGID=yes",
        "RestrictRealtime=yes",
        "LockPersonality=yes",
        "RestrictNamespaces=user mnt net",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        *(() if spec.metadata else (f"IPAddressDeny={METADATA}/32",)),
        "SystemCallArchitectures=native",
        "SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap",
        "SystemCallErrorNumber=EPERM",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text for a description: one line, specifiers escaped."""
    return " ".join(text.split()).replace("%", "%%")


def _path(path: str) -> str:
    """A path in a setting that takes paths: specifiers escaped, quoted where it has to be."""
    escaped = path.replace("\\", "\\\\").replace("%", "%%")
    return f'"{escaped}"' if any(char in escaped for char in " \t'") else escaped


def unit_word(word: str, *, command: bool = True) -> str:
    """One word of a command or an assignment, as systemd reads it back.

    Specifiers (`%`), quotes and backslashes are special in both, variables (`$`) only in commands.

    Raises:
        ValueError: a line break or another control character.
    """
    if any(ord(char) < 32 for char in word):
        raise ValueError(f"{word!r} cannot stand in a unit")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if command:
        escaped = escaped.replace("$", "$$")
    return f'"{escaped}"' if escaped != word or not word or any(char in " ;'" for char in word) else escaped
