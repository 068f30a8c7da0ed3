"""The protobuf modules of the Pulumi SDK, without the SDK.

`import pulumi` runs the whole SDK (0.2 s and more on the path of every command). The engine needs its generated
protocol modules only, so it names the packages above them itself, with the SDK's folders as their paths. That is done
only in the engine's own process, and only where the SDK has not been imported.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types

from .problems import CommandFailed


def prepare() -> None:
    """Makes `pulumi.runtime.proto.*` importable cheaply."""
    # gRPC's own log lines (a provider that goes away) would stand among the command's errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if "pulumi" in sys.modules:
        return
    spec = importlib.util.find_spec("pulumi")
    if spec is None or not spec.submodule_search_locations:
        raise CommandFailed(
            "the Pulumi SDK is not installed; install fedspan with its extra: pip install 'fedspan[cloud]'"
        )
    base = spec.submodule_search_locations[0]
    for name, folder in (("pulumi", ""), ("pulumi.runtime", "/runtime"), ("pulumi.runtime.proto", "/runtime/proto")):
        module = types.ModuleType(name)
        module.__path__ = [base + folder]
        sys.modules[name] = module
