"""A crash leaves nothing behind: what an interrupted operation left in a cloud is found and settled.

The engine alone makes an interrupted resource a second time and forgets the first. So before any operation that follows
an unclean one, `settle` compares what the cloud holds of a participant with the stack's state, deletes what the state
does not know, finishes interrupted deletions, and clears the pending operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deployer.settle.model import Found, Settled, Whose, World
from deployer.settle.run import delete_all, find_all, settle
from deployer.settle.state import orphans

if TYPE_CHECKING:
    from deployer.settle.aws_world import AwsWorld
    from deployer.settle.azure_world import AzureWorld

__all__ = [
    "AwsWorld",
    "AzureWorld",
    "Found",
    "Settled",
    "Whose",
    "World",
    "delete_all",
    "find_all",
    "orphans",
    "settle",
]


def __getattr__(name: str) -> Any:
    # boto3 and azure-mgmt take a second to import; who asks for one cloud need not load the other's.
    if name == "AwsWorld":
        from deployer.settle.aws_world import AwsWorld

        return AwsWorld
    if name == "AzureWorld":
        from deployer.settle.azure_world import AzureWorld

        return AzureWorld
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
