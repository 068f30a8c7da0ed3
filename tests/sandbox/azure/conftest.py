"""One emulated Azure for all tests here; each test gets a subscription of its own, so that none sees another's."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.sandbox.addresses import AddressPool
from deployer.sandbox.azure import ArmServer, AzureNativeProvider
from deployer.sandbox.faults import FaultBook, Faults

from .arm_kit import Azure, Plugin, serving


@pytest.fixture(scope="session")
def book() -> FaultBook:
    return FaultBook(None)


@pytest.fixture(scope="session")
def arm(book: FaultBook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArmServer]:
    home: Path = tmp_path_factory.mktemp("arm")
    with ArmServer(addresses=AddressPool("127.201.0.0/22"), home=home, faults=book) as server:
        yield server


@pytest.fixture
def azure(arm: ArmServer) -> Azure:
    subscription = str(uuid.uuid4())
    arm.add_subscription(subscription)
    return Azure(arm, subscription, arm.environment(subscription))


@pytest.fixture
def fault(book: FaultBook) -> Iterator[Callable[..., None]]:
    """Sets faults for the test; none are left after it."""
    yield lambda **what: book.write(Faults.from_json(what))
    book.write(Faults())


@pytest.fixture
def plugin(azure: Azure) -> Iterator[Plugin]:
    """An engine's side of a fresh plugin, configured for the test's subscription."""
    provider: Any = AzureNativeProvider(azure.server.url, azure.server.ca_file, azure.environment)
    with serving(provider) as address:
        engine = Plugin(address)
        engine.configure(subscriptionId=azure.subscription)
        yield engine
        engine.channel.close()
