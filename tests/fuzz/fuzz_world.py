"""What the fuzz targets share: kits, and a hub and an agent that nobody is connected to."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "fl_runtime"))

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from federation import TestCA

from fl_runtime.kit import Kit, read_kit

Target = Callable[[bytes], bool]  # whether the bytes were taken for what they should be; False: refused with our error


class Unexpected(logging.Handler):
    """What our code logs with a traceback, it did not expect: that is a bug too."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR and record.exc_info and record.exc_info[1] is not None:
            raise record.exc_info[1]


@contextlib.contextmanager
def nothing_unexpected() -> Iterator[None]:
    """While it lasts, what is logged with a traceback is raised where it was logged."""
    logger, handler = logging.getLogger("fedspan"), Unexpected()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:  # other tests of this process log tracebacks on purpose
        logger.propagate = True
        logger.removeHandler(handler)


class World:
    """Kits of a small CA, a folder, and (made when first asked for) a hub and an agent that nobody is connected to."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="fedspan-fuzz-"))
        atexit.register(shutil.rmtree, self.root, True)
        self.ca = TestCA()
        self.site: Kit = read_kit(self._small(self.ca.kit(self.root / "site", "site-1", "site", port=1)))
        self.server: Kit = read_kit(self._small(self.ca.kit(self.root / "server", "server", "server", port=1)))
        self.admin: Kit = read_kit(self.ca.kit(self.root / "admin", "a@b.c", "admin", port=1, admin_role="lead"))
        self.key = serialization.load_pem_private_key(self.admin.key, None)
        self._numbers = itertools.count()

    @staticmethod
    def _small(kit: Path) -> Path:
        """What asks for room for a huge file gets it, up to the quota: not the whole disk."""
        (kit / "local/resources.yml").write_text("disk_quota: 64MB\n")
        return kit

    def sign(self, document: bytes) -> bytes:
        assert isinstance(self.key, ec.EllipticCurvePrivateKey)
        return self.key.sign(document, ec.ECDSA(hashes.SHA256()))

    def fresh(self) -> Path:
        """A path where nothing is."""
        return self.root / f"n{next(self._numbers)}"

    @functools.cached_property
    def hub(self) -> Any:
        from fl_runtime.hub.main import Hub

        state = self.fresh()
        state.mkdir()
        hub = Hub(self.server, state)
        hub.jobs._closing = True  # nothing is started
        hub.wait_change = lambda seen, timeout: None  # who watches need not wait
        return hub

    def new_hub(self) -> None:
        """The next target gets another."""
        hub = self.__dict__.pop("hub", None)
        if hub is not None:
            hub.store.close()
            shutil.rmtree(hub.state)

    @functools.cached_property
    def agent(self) -> Any:
        from fl_runtime.agent.main import Agent

        (self.root / "agent-state/jobs").mkdir(parents=True)
        return Agent(self.site, self.root / "agent-state", {})

    @functools.cached_property
    def agent_with_a_job(self) -> Any:
        from fl_runtime.agent.main import Agent

        (self.root / "script-state/jobs").mkdir(parents=True)
        return Agent(self.site, self.root / "script-state", {})


@functools.lru_cache(maxsize=1)
def world() -> World:
    return World()


def changes(database: Any) -> int:
    """How many rows were changed so far, what waits for others' commit included."""
    with database.tx():
        return int(database._connection.total_changes)


@contextlib.contextmanager
def scratch() -> Any:
    path = world().fresh()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
