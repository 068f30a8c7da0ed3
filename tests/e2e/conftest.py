"""Worlds for the end-to-end tests: a sandbox and a workspace each, driven by the real command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the suite imports by path: helpers are found beside their tests

from e2e_world import SPEC, World, make_world
from nspawn_world import make_nspawn_world


@pytest.fixture(scope="session", autouse=True)
def _engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """With `--pulumi-root DIR` every command of these tests runs DIR/bin/pulumi against the same emulated clouds."""
    with pytest.MonkeyPatch.context() as patch:
        if (given := request.config.getoption("--pulumi-root")) is not None:
            patch.setenv("FEDSPAN_PULUMI_ROOT", str(given.resolve()))
        yield


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels for the machines, made once for all tests."""
    given = os.environ.get("FEDSPAN_TEST_CACHE")
    return Path(given) if given else tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def world(cache: Path) -> Iterator[World]:
    """A world that the tests of one module share, in their order."""
    with closing(make_world(cache)) as made:
        yield made


@pytest.fixture(scope="module")
def nspawn(cache: Path) -> Iterator[World]:
    """As `world`, with machines that are systems of their own."""
    with closing(make_nspawn_world(cache)) as made:
        yield made


@pytest.fixture
def fresh_nspawn(cache: Path) -> Iterator[World]:
    """As `fresh`, likewise."""
    with closing(make_nspawn_world(cache)) as made:
        yield made


@pytest.fixture
def fresh(cache: Path) -> Iterator[World]:
    """A world for one test."""
    with closing(make_world(cache)) as made:
        yield made


@pytest.fixture(scope="module")
def planned(world: World) -> World:
    """Kits for a server on Azure and a site on AWS, and nothing deployed."""
    world.write(SPEC)
    world.run("provision").ok()
    return world


@pytest.fixture(scope="module")
def up(world: World) -> World:
    """A server on Azure and a site on AWS, registered."""
    world.write(SPEC)
    world.run("up", "--yes").ok()
    return world
