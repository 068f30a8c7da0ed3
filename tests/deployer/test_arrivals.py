"""Who is deployed waits for what it needs of the others, and for no more."""

from __future__ import annotations

import threading

import pytest

from deployer.arrivals import Arrivals
from deployer.errors import Interrupted
from deployer.interrupts import Interrupts


def waiting(arrivals: Arrivals, *names: str) -> threading.Thread:
    thread = threading.Thread(target=arrivals.wait_for, args=names, daemon=True)
    thread.start()
    return thread


def test_all_are_waited_for_where_nobody_is_named() -> None:
    arrivals = Arrivals(["server", "site-1", "site-2"], Interrupts().check)
    everybody, server = waiting(arrivals), waiting(arrivals, "server")
    arrivals.arrived("server")
    server.join(60)
    assert not server.is_alive()
    arrivals.arrived("site-1")
    everybody.join(0.5)
    assert everybody.is_alive()
    arrivals.arrived("site-2")
    everybody.join(60)
    assert not everybody.is_alive()


def test_nobody_waits_for_one_who_is_not_on_the_way() -> None:
    Arrivals(["site-1"], Interrupts().check).wait_for("server")
    Arrivals([], Interrupts().check).wait_for()


def test_ctrl_c_ends_the_wait() -> None:
    interrupts = Interrupts()
    threading.Timer(0.1, interrupts.interrupt).start()
    with pytest.raises(Interrupted):
        Arrivals(["server"], interrupts.check).wait_for("server")
