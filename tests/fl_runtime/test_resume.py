"""A link that is cut in the middle of a transfer goes on at the missing leaves, in both directions."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from federation import Federation, until
from relay import Relay
from safetensors.numpy import load_file
from scripts import ADD

MIB = 1024 * 1024
SIZE = 48 * MIB


@pytest.mark.parametrize("whole", [True, False], ids=["link", "bulk-connection"])
@pytest.mark.parametrize("direction", ["up", pytest.param("down", marks=pytest.mark.slow)])
def test_a_cut_costs_what_was_on_its_way_and_no_more(fresh: Federation, direction: str, whole: bool) -> None:
    """Also where the connection for bulk breaks alone, and nobody is lost."""
    relay = Relay(("127.0.0.1", fresh.port))
    relay.pause = 0.001
    (fresh.sites["site-1"].kit / "local/endpoint.yml").write_text(f"server: 127.0.0.1:{relay.port}\n")
    fresh.sites["site-1"].stop()
    fresh.start("site-1")
    model = {"tensors": {"w": [SIZE // 4]}, "init": "normal"}
    folder = fresh.job("cut", ADD, sites=["site-1"], workflow={"type": "fedavg", "rounds": 1, "model": model})

    def moved() -> int:
        return relay.up_bytes if direction == "up" else relay.down_bytes

    def cut() -> None:
        until(lambda: moved() > SIZE // 2, 60, "half of it")
        if not whole:
            relay.break_(*range(1, relay.connections))  # the first one is for control
            return
        relay.cut()
        time.sleep(1.0)
        relay.down = False

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        with fresh.session() as session:
            job = session.submit(folder)
            session.wait(job, 120)
            got = load_file(session.download(job, fresh.root / "results") / "model.safetensors")["w"]
    finally:
        cutter.join(70)
        relay.close()
    want = np.random.default_rng(0).normal(0.0, 0.1, SIZE // 4).astype(np.float32) + np.float32(1)
    assert np.array_equal(got, want)
    assert whole or "site-1 is lost" not in fresh.server.text().partition(job)[2].partition("FINISHED")[0]
    # One leaf (4 MiB), and what TCP and HTTP/2 had under way when the link broke.
    assert moved() < SIZE + 16 * MIB, f"{moved() / MIB:.0f} MiB for {SIZE / MIB:.0f}"
