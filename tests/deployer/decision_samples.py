"""A step of an engine and a participant, for tests of what is decided without any cloud."""

from __future__ import annotations

from pathlib import Path

from deployer.engine_events import Step
from deployer.member import Member

VM = "aws:ec2/instance:Instance"
URN = "urn:pulumi:site-1::fedspan-digits::fedspan:aws:Participant$aws:ec2/instance:Instance::site-1-vm"


def step(action: str, name: str = "site-1-vm", type_: str = VM, *reasons: str) -> Step:
    return Step(f"urn::{name}", type_, name, action, reasons)  # type: ignore[arg-type]  # tests name actions as text


def member(name: str, target: str = "aws", **more: object) -> Member:
    role = "server" if name == "server" else "site"
    return Member(name, role, target, Path("kits") / name, **more)  # type: ignore[arg-type]  # free-form test values


SERVER = member("server", "azure", port=8002)
