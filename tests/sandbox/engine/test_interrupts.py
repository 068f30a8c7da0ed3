"""An interrupt at any moment of a command, its start and its end too, leaves no lock."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time

import pytest

from .bench import Bench, Thing
from .random_programs import Known, check


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_moment_of_a_command_loses_the_lock(bench: Bench, number: signal.Signals) -> None:
    pick = random.Random(int(number))
    bench.program = lambda: Thing("a", size=pick.randint(1, 9)) and None
    for _ in range(12):
        bench.command.pid = 0
        striker = threading.Thread(target=_strike, args=(bench, number, pick.random() * 1.2), daemon=True)
        striker.start()
        bench.step("struck", "up", show_secrets=False)
        striker.join()  # two strikes at one command would end it at once
        check(bench, Known(), killed=False)


def _strike(bench: Bench, number: signal.Signals, after: float) -> None:
    while not bench.command.pid:
        time.sleep(0.005)
    pid = bench.command.pid
    time.sleep(after)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
