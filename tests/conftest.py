"""What all tests share: which `pulumi` command the engine's and the end-to-end tests run with."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

import fl_runtime.wire  # noqa: F401 - before anything imports gRPC, for the tests that serve in this process

sys.path.insert(0, str(Path(__file__).parent))  # `waiting` is for all of them

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # a suite in a shell's background has inherited that Ctrl-C is ignored, and the commands that it runs would too
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pulumi-root",
        type=Path,
        default=None,
        metavar="DIR",
        help="run the engine's and the end-to-end tests with DIR/bin/pulumi (the real command) instead of the stand-in",
    )


@pytest.fixture(scope="session")
def pulumi_root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose bin/pulumi the tests use: the one given, else the sandbox's own engine."""
    given: Path | None = request.config.getoption("--pulumi-root")
    if given is not None:
        return given.resolve()
    from deployer.sandbox import engine

    return engine.root(tmp_path_factory.mktemp("engine"))
