"""What the tables of refusals share: what is done, and raw bodies that no SDK model would let through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .arm_kit import Azure

Do = Callable[[Azure], Any]


def path_of(azure: Azure, path: str) -> str:
    return f"/subscriptions/{azure.subscription}/resourceGroups/rg/providers/{path}"


def put(azure: Azure, path: str, body: dict[str, Any]) -> Any:
    """A raw PUT through the SDK's generic client, which sends a body as it is."""
    resource_id = path_of(azure, path).lstrip("/")
    return azure.resources.resources.begin_create_or_update_by_id(resource_id, body, api_version="2024-05-01").result()


def raw(body: dict[str, Any], path: str = "Microsoft.Network/virtualNetworks/vnet") -> Do:
    return lambda azure: (azure.group(), put(azure, path, body))


SPACE = {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}}


def cases(table: list[Any]) -> Any:
    return pytest.mark.parametrize("case", table, ids=[row[0] for row in table])
