"""Fixtures: a federation for a test module (jobs take a fraction of a second each), or one for a single test."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from door import HANDSHAKE_S, Door
from federation import Federation, federation
from lone_site import Site
from postgres_server import Server, binaries, postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A real PostgreSQL, for all tests that want one."""
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    if binaries() is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    with postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Server) -> str:
    """An empty database."""
    return postgres_server.new_database(f"test-{secrets.token_hex(4)}")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A server and three registered sites."""
    with federation(tmp_path_factory.mktemp("federation")) as made:
        yield made


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Federation]:
    """The same, for a test that kills things."""
    with federation(tmp_path) as made:
        yield made


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Federation]:
    """Kits only; nothing runs yet."""
    with federation(tmp_path, start=False) as made:
        (made.root / "state").mkdir()
        yield made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site without a server."""
    with contextlib.closing(Site(tmp_path)) as made:
        yield made


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with contextlib.closing(Door(tmp_path)) as made:
        yield made


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Door]:
    """A door that gives a handshake only a second."""
    with contextlib.closing(Door(tmp_path, HANDSHAKE_S)) as made:
        yield made
