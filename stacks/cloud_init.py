"""A machine's user-data: cloud-config text, made from arguments alone.

It holds the SSH host key (a secret until the first login replaces it), the deployment's public key, the SSH port and
the mounting of the state volume. No kit, no packages, no shell text from outside: all that varies is checked arguments.
"""

from __future__ import annotations

from typing import Any

import yaml

from stacks.args import CUSTOM_DATA_LIMIT, ParticipantArgs
from stacks.errors import StackArgumentError
from stacks.images import has_gpu
from stacks.state_volume import SCRIPT_PATH, UNIT_NAME, UNIT_PATH, script, unit

_SSHD = """\
# Written by fedspan at first boot.
Port {port}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
"""

# Ubuntu 24.04 starts sshd by socket activation, which has its own idea of the port; older ones ignore this file.
_SSH_SOCKET = """\
# Written by fedspan at first boot.
[Socket]
ListenStream=
ListenStream={port}
"""

_UPGRADES = """\
// Written by fedspan at first boot: security updates install themselves.
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
"""

# A driver that is upgraded under a running job leaves its kernel module and its libraries at odds until a reboot.
_HOLD_NVIDIA = """\
// Written by fedspan at first boot: NVIDIA's packages stay as the image brought them.
Unattended-Upgrade::Package-Blacklist { "nvidia-"; "libnvidia-"; "cuda-"; "linux-modules-nvidia-"; };
"""

_RESTART_SSH = (
    "systemctl daemon-reload; "
    "if systemctl is-active --quiet ssh.socket; "
    "then systemctl stop ssh.service ssh.socket; systemctl start ssh.socket; "
    "else systemctl restart ssh.service; fi"
)


def user_data(args: ParticipantArgs) -> str:
    """The cloud-config text of a participant's machine, the same for both clouds; at most 16 KiB.

    It contains the private host key: hand it on as a secret only.
    """
    text = "#cloud-config\n" + yaml.dump(
        _config(args), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=False, default_flow_style=False
    )
    if len(text.encode()) > CUSTOM_DATA_LIMIT:
        raise StackArgumentError("user-data", f"{len(text)} bytes, and the clouds take {CUSTOM_DATA_LIMIT}")
    return text


def _config(args: ParticipantArgs) -> dict[str, Any]:
    return {
        "hostname": args.participant,
        "manage_etc_hosts": True,
        "users": [
            {
                "name": args.ssh_user,
                "shell": "/bin/bash",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [args.public_key.strip()],
            }
        ],
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": {
            "ed25519_private": args.host_key.private.rstrip("\n") + "\n",
            "ed25519_public": args.host_key.public.strip(),
        },
        "write_files": _files(args),
        "runcmd": [
            ["sh", "-c", _RESTART_SSH],
            ["systemctl", "enable", "--now", "--no-block", UNIT_NAME],
        ],
    }


def _files(args: ParticipantArgs) -> list[dict[str, str]]:
    files = [
        ("/etc/ssh/sshd_config.d/10-fedspan.conf", "0644", _SSHD.format(port=args.ssh_port)),
        ("/etc/systemd/system/ssh.socket.d/10-fedspan.conf", "0644", _SSH_SOCKET.format(port=args.ssh_port)),
        ("/etc/apt/apt.conf.d/20auto-upgrades", "0644", _UPGRADES),
        (SCRIPT_PATH, "0755", script()),
        (UNIT_PATH, "0644", unit()),
    ]
    if has_gpu(args):
        files.append(("/etc/apt/apt.conf.d/52fedspan-hold-nvidia", "0644", _HOLD_NVIDIA))
    return [{"path": path, "permissions": mode, "owner": "root:root", "content": text} for path, mode, text in files]


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as literal blocks: a person can read them, and no escape changes them."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
