"""A driver for each module of tests, a clean one for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from machine_lab import Lab

from deployer.sandbox.faults import Faults
from deployer.sandbox.machines.standalone import Machines, machines


@pytest.fixture(scope="module")
def _machines() -> Iterator[Machines]:
    with machines() as some:
        yield some


@pytest.fixture
def lab(_machines: Machines) -> Iterator[Lab]:
    made = Lab(_machines)
    yield made
    made.close()
    _machines.faults.write(Faults())


@pytest.fixture(scope="module")
def machine(_machines: Machines) -> Iterator[tuple[Lab, dict[str, Any]]]:
    """One machine for all tests of a module that don't change it."""
    made = Lab(_machines)
    yield made, made.boot()
    made.close()
