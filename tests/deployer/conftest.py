"""What the deployer's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployer.kit_servers import kits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kits of a server and a site, for the tests of one module."""
    return kits(tmp_path_factory.mktemp("federation") / "fed")
