"""Programs that are cut off leave coroutines behind; they are collected where they belong."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from .bench import Bench
from .random_programs import opened


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "sandbox/engine" in item.nodeid:
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """The SDK's half-run coroutines complain when they are collected: here, not in the middle of another test."""
    yield
    gc.collect()


@pytest.fixture
def bench(pulumi_root: Path) -> Iterator[Bench]:
    """An empty stack of the test's own."""
    with opened(pulumi_root) as bench:
        yield bench
