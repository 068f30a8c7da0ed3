"""A driver for each module of tests, a clean one for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from machine_lab import Lab
from nspawn_lab import NspawnLab

from deployer.sandbox.faults import Faults
from deployer.sandbox.machines.nspawn import image, tools
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


@pytest.fixture(scope="session")
def root_image() -> Path:
    """The machines' root file system, made at the first test that wants it (a minute or two) and kept in the cache."""
    if why := tools.lacking():
        pytest.skip(why)
    return image.ensure(print)


@pytest.fixture(scope="module")
def systems(root_image: Path) -> Iterator[NspawnLab]:
    """A sandbox's machines, made by the nspawn driver."""
    with machines(root_image) as some:
        made = NspawnLab(some)
        yield made
        made.close()
