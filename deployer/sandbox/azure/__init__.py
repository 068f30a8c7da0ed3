"""The emulated Azure: an ARM server that unmodified Azure SDKs talk to, a Pulumi provider over it, and views of it."""

from __future__ import annotations

from deployer.sandbox.azure.arm_server import DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, ArmServer
from deployer.sandbox.azure.view import inventory, machines

__all__ = ["DEFAULT_SUBSCRIPTION", "DEFAULT_TENANT", "ArmServer", "inventory", "machines"]
