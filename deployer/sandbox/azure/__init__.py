"""The emulated Azure: an ARM server that unmodified Azure SDKs talk to, a Pulumi provider over it, and views of it.

Importing this costs gRPC and the Azure models' package: for the sandbox's daemon, not for the command line.
"""

from __future__ import annotations

from deployer.sandbox.azure.arm_server import DEFAULT_SUBSCRIPTION, DEFAULT_TENANT, ArmServer
from deployer.sandbox.azure.provider import AzureNativeProvider
from deployer.sandbox.azure.view import inventory, machines

__all__ = ["DEFAULT_SUBSCRIPTION", "DEFAULT_TENANT", "ArmServer", "AzureNativeProvider", "inventory", "machines"]
