"""One sandbox for all tests of this folder; each test has a participant of its own in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="package")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from deployer.sandbox.client import Sandbox

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDSPAN_SANDBOX_HOME", str(tmp_path_factory.mktemp("sandbox")))
        running = Sandbox.ensure()
        try:
            # As the deployer does: azure-identity and azure-mgmt must trust the emulated ARM's certificate.
            patch.setenv("REQUESTS_CA_BUNDLE", running.azure_environment()["REQUESTS_CA_BUNDLE"])
            yield running
        finally:
            running.stop()
