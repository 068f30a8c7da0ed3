"""The modules that the stacks' programs need."""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from types import ModuleType

PROVIDERS = {"aws": ("aws", "pulumi-aws"), "azure": ("azure-native", "pulumi-azure-native")}
"""Of each cloud: the engine's plugin, and the package of its resources, which has the plugin's version."""

_lock = threading.Lock()


def load_program(cloud: str) -> None:
    """Import what the programs of a cloud's stacks need: the provider packages load their modules at the first look at
    them, which two threads must not take at once.
    """
    with _lock:
        import_module(f"stacks.{cloud}")
        for name, module in list(sys.modules.items()):
            if name.startswith("stacks."):
                for package in list(vars(module).values()):
                    if isinstance(package, ModuleType):
                        getattr(package, "any", None)  # the first look at an attribute loads the module
