"""Default providers: made by the engine when a resource or a function names no provider, one for each package and
version.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from . import urns
from .goal import Goal, Registration
from .provider import INTERNAL
from .values import Properties, Secret


class DefaultProviders:
    """`register` hands a registration to the deployment; `config` is the stack's configuration (key -> value,
    secret).
    """

    def __init__(self, register: Callable[[Registration], None], config: Mapping[str, tuple[str, bool]]) -> None:
        self._register, self._config = register, config
        self._made: dict[tuple[str, str, str], Registration] = {}
        self._lock = threading.Lock()

    def get(self, package: str, version: str, url: str) -> str:
        """The reference of the package's default provider; empty when the deployment ends before there is one."""
        key = (package, version, url)
        with self._lock:
            registration = self._made.get(key)
            if registration is None:
                registration = self._made[key] = Registration(self._goal(package, version, url))
                self._register(registration)
        result = registration.wait()
        return urns.reference(result.state.urn, result.state.id) if result is not None and not result.failed else ""

    def _goal(self, package: str, version: str, url: str) -> Goal:
        properties: Properties = {}
        for name, (value, secret) in self._config.items():
            namespace, _, key = name.partition(":")
            if namespace == package and key not in {"version", "pluginDownloadURL"}:
                properties[key] = Secret(value) if secret else value
        if version:
            properties["version"] = version
        if url:
            properties[INTERNAL] = {"pluginDownloadURL": url}
        return Goal(urns.PROVIDER_PREFIX + package, urns.provider_name(version, url), True, properties=properties)
