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


@pytest.fixture
def rig(sandbox: object, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[object]:
    """A stack whose participant is named after the test; whatever happens, nothing of it stays in the clouds."""
    from settle_rig import Rig

    from deployer.settle import delete_all

    made: list[Rig] = []

    def make(cloud: str, **changes: object) -> Rig:
        name = f"p{abs(hash(request.node.nodeid)) % 10**8}"
        made.append(Rig(tmp_path, cloud, name, changes))
        return made[-1]

    yield make
    for one in made:
        delete_all(one.world, one.found())
