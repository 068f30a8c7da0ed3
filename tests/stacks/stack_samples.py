"""Arguments as the example spec would give them."""

from __future__ import annotations

import base64
from typing import Any

from stacks.args import HostKey, ParticipantArgs

_BODY = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + b"\0\0\0\x20" + bytes(range(32))).decode()
PUBLIC_KEY = f"ssh-ed25519 {_BODY} deployment"
PRIVATE_BODY = "bm90IGEga2V5IGJ1dCBpdHMgc2hhcGU="
HOST_KEY = HostKey(
    private=f"-----BEGIN OPENSSH PRIVATE KEY-----\n{PRIVATE_BODY}\n-----END OPENSSH PRIVATE KEY-----\n",
    public=f"ssh-ed25519 {_BODY}",
)
CLOUDS = ("aws", "azure")


def sample(cloud: str = "aws", role: str = "site", **more: Any) -> ParticipantArgs:
    given: dict[str, Any] = {
        "federation": "digits",
        "deployment": "d1",
        "participant": "server" if role == "server" else "site-1",
        "role": role,
        "owner": "fl-lead@hospital-a.example",
        "region": "eu-central-1" if cloud == "aws" else "westeurope",
        "size": "m7i.large" if cloud == "aws" else "Standard_D4s_v5",
        "ssh_ingress": ("198.51.100.10/32",),
        "public_key": PUBLIC_KEY,
        "host_key": HOST_KEY,
    }
    if role == "server":
        given |= {"runtime_port": 8002, "runtime_ingress": ("203.0.113.7/32", "203.0.113.50/32")}
    return ParticipantArgs(**{**given, **more})
