"""A site, as a controller sees it."""

from __future__ import annotations

import time
from typing import Any


class Client:
    """`name` is the site's name; the token is the same (sites are known by certificates here)."""

    def __init__(self, name: str, token: str | None = None) -> None:
        self.name = name
        self.token = token or name
        self.last_connect_time = time.time()
        self.props: dict[str, Any] = {}

    def get_token(self) -> str:
        return self.token

    def set_prop(self, name: str, value: Any) -> None:
        self.props[name] = value

    def get_prop(self, name: str, default: Any = None) -> Any:
        return self.props.get(name, default)

    def __repr__(self) -> str:
        return f"Client({self.name})"
