"""The providers of a deployment: which plugin serves a provider resource, and when it is configured with what.

A provider resource goes through the same steps as any other; instead of a plugin's Check, Diff, Create, Update and
Delete come CheckConfig, DiffConfig and Configure of the plugin itself. A plugin loaded for CheckConfig is the one
that is then configured.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping

from . import urns
from .difference import Diff
from .problems import CommandFailed, ProviderError
from .provider import Failures, Provider
from .state import Resource
from .values import Properties, equal


def attached(environment: str) -> dict[str, int]:
    """Package -> port, of PULUMI_DEBUG_PROVIDERS (`aws:4711,azure-native:4712`)."""
    out = {}
    for part in filter(None, (p.strip() for p in environment.split(","))):
        package, _, port = part.rpartition(":")
        if not package or not port.isdigit():
            raise CommandFailed(f"expected PULUMI_DEBUG_PROVIDERS to be NAME:PORT pairs, got {part!r}")
        out[package] = int(port)
    return out


class Registry:
    def __init__(self, ports: Mapping[str, int], engine_address: str) -> None:
        self._ports, self._engine_address = ports, engine_address
        self._lock = threading.RLock()
        self._checked: dict[str, Provider] = {}  # by URN: loaded for CheckConfig, not configured yet
        self._configured: dict[str, Provider] = {}  # by reference
        self._all: list[Provider] = []
        self._known: dict[str, Resource] = {}  # by reference: providers of the old state, loaded when first needed

    def add_old(self, resources: list[Resource]) -> None:
        """Providers of the checkpoint: configured from their recorded inputs when something of theirs is touched."""
        for resource in resources:
            if urns.is_provider_type(resource.type):
                self._known[urns.reference(resource.urn, resource.id)] = resource

    def _load(self, type_: str) -> Provider:
        package = urns.provider_package(type_)
        port = self._ports.get(package)
        if port is None:
            raise ProviderError(
                f"no provider is attached for package '{package}': the sandbox's engine loads no plugins; "
                "name its port in PULUMI_DEBUG_PROVIDERS"
            )
        provider = Provider(package, port, self._engine_address)
        self._all.append(provider)
        return provider

    # -- the steps of a provider resource ---------------------------------------------------------------------------
    def check(self, urn: str, olds: Properties, news: Properties) -> tuple[Properties, Failures]:
        with self._lock:
            provider = self._checked[urn] = self._load(urns.type_of(urn))
        return provider.check_config(urn, olds, news)

    def diff(self, old: Resource, new: Resource) -> Diff:
        with self._lock:
            provider = self._checked[new.urn]
        diff = provider.diff_config(new.urn, old, new.inputs)
        if diff.changes is None:
            diff.changes = not equal(old.inputs, new.inputs)
        return diff

    def same(self, old: Resource) -> None:
        """The provider stays as it was, configured as it was."""
        ref = urns.reference(old.urn, old.id)
        with self._lock:
            if ref in self._configured:
                return
            provider = self._checked.pop(old.urn, None) or self._load(old.type)
            self._configured[ref] = provider
            provider.configure(old, old.inputs, old.id)

    def create(self, new: Resource, *, preview: bool) -> str:
        """Configures a new provider and returns its id."""
        id_ = urns.UNKNOWN_ID if preview else str(uuid.uuid4())
        self._configure(new, id_)
        return id_

    def update(self, new: Resource) -> None:
        self._configure(new, new.id)

    def _configure(self, new: Resource, id_: str) -> None:
        with self._lock:
            provider = self._checked.pop(new.urn, None) or self._load(new.type)
            self._configured[urns.reference(new.urn, id_)] = provider
            provider.configure(new, new.inputs, id_)

    # -- the resources' side ------------------------------------------------------------------------------------------
    def get(self, ref: str) -> Provider:
        """The configured plugin of a provider reference. Raises ProviderError when there is none."""
        with self._lock:
            provider = self._configured.get(ref)
            if provider is None:
                old = self._known.get(ref)
                if old is None:
                    raise ProviderError(f"unknown provider '{ref}'")
                self.same(old)
                provider = self._configured[ref]
            return provider

    def cancel(self) -> None:
        for provider in list(self._all):
            threading.Thread(target=provider.cancel, daemon=True).start()

    def close(self) -> None:
        for provider in self._all:
            provider.close()
