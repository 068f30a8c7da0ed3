"""A sandbox for each module of tests, in a home of its own, stopped at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.sandbox.client import Sandbox
from deployer.sandbox.leftovers import sweep
from deployer.sandbox.state import HOME_VARIABLE


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The module's sandbox home; whatever lives there when the tests are through is ended."""
    folder = Path(tempfile.mkdtemp(prefix="fsb-"))
    before = os.environ.get(HOME_VARIABLE)
    os.environ[HOME_VARIABLE] = str(folder)
    try:
        yield folder
        found = Sandbox.find()
        if found is not None:
            found.stop()
        sweep(folder)
    finally:
        if before is None:
            del os.environ[HOME_VARIABLE]
        else:
            os.environ[HOME_VARIABLE] = before
        shutil.rmtree(folder)


@pytest.fixture
def sandbox(home: Path) -> Sandbox:
    """The module's sandbox, running."""
    return Sandbox.ensure()
