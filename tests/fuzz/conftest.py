"""The fuzzers' modules lie beside their tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_world import nothing_unexpected


@pytest.fixture(autouse=True)
def _nothing_unexpected() -> Iterator[None]:
    with nothing_unexpected():
        yield
