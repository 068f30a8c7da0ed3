"""Links that break, go dark, or are full: how soon each side knows, how soon it is well again, and what it costs."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from federation import Federation, until
from relay import Relay
from safetensors.numpy import load_file
from scripts import ADD, SLOW

from fl_runtime.agent.link import Link
from fl_runtime.hub.sessions import Session, Sessions
from fl_runtime.names import KEEPALIVE_S, LEAF, LOST_AFTER_S, WELCOME_WITHIN_S
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire.identity import Identity

MIB = 1024 * 1024
SIZE = 48 * MIB


def through(fed: Federation, site: str) -> Relay:
    """From now on the site reaches the server through a relay."""
    relay = Relay(("127.0.0.1", fed.port))
    (fed.sites[site].kit / "local/endpoint.yml").write_text(f"server: 127.0.0.1:{relay.port}\n")
    return relay


def is_registered(fed: Federation, site: str) -> bool:
    return bool(fed.server.status()["sites"].get(site, {}).get("registered"))


@pytest.fixture
def relayed(stopped: Federation) -> Iterator[tuple[Federation, Relay]]:
    """A server and site-1 behind a relay."""
    relay = through(stopped, "site-1")
    stopped.start("server", "site-1")
    yield stopped, relay
    relay.close()


def test_a_link_that_goes_dark_is_noticed_by_both_sides_and_taken_up_when_it_returns(
    relayed: tuple[Federation, Relay],
) -> None:
    fed, relay = relayed
    relay.freeze()
    # by the heartbeats, before gRPC's own pings would tell
    until(lambda: not is_registered(fed, "site-1"), KEEPALIVE_S / 4, "the server notices")
    until(lambda: not fed.sites["site-1"].status()["connected"], KEEPALIVE_S / 4, "the site notices too")
    relay.thaw()
    fed.registered("site-1")


def test_a_site_is_lost_after_4_5_seconds_without_a_byte_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def cancel(self) -> None:
            cancelled.append(True)

    cancelled: list[bool] = []
    lost: list[str] = []
    sessions = Sessions(lambda name: None, lost.append)
    identity = Identity("site-1", "site", "digits", "ab")
    session = Session(identity, "i", "0", {}, "a", Context(), heard=100.0)  # type: ignore[arg-type]
    sessions.enter(session)
    for now, then_lost in ((104.5, []), (104.6, ["site-1"]), (200.0, ["site-1"])):
        monkeypatch.setattr("fl_runtime.hub.sessions.time", SimpleNamespace(monotonic=lambda now=now: now))
        sessions.end_silent()
        assert lost == then_lost
    assert cancelled == [True]
    assert sessions.lost_for("site-1") == pytest.approx(200.0 - 104.6)


@pytest.mark.parametrize(("welcomed", "limit"), [(True, LOST_AFTER_S), (False, WELCOME_WITHIN_S)])
def test_a_server_is_lost_after_its_time_without_a_byte_and_not_before(
    monkeypatch: pytest.MonkeyPatch, welcomed: bool, limit: float
) -> None:
    """As its sites count: 4.5 seconds, or ten until its welcome."""
    now, seen = [100.0], []
    welcome = pb.Welcome() if welcomed else None
    call = SimpleNamespace(cancel=lambda: seen.append(("cancelled", now[0] - 100.0)))
    attempt = SimpleNamespace(call=call, welcome=welcome, heard=100.0, silent=False, out=queue.SimpleQueue())
    link = Link(None, {}, lambda: None, lambda message: None)  # type: ignore[arg-type]
    later = iter((limit - 1.0, limit, limit + 0.1))

    def wait(seconds: float) -> bool:
        """A beat's pause; over after the last of them."""
        seen.append(("silent" if attempt.silent else "heard", now[0] - 100.0))
        passed = next(later, None)
        now[0] = 100.0 + (passed or 0.0)
        return passed is None

    link._attempt = attempt  # type: ignore[assignment]
    link._stopping = SimpleNamespace(wait=wait)  # type: ignore[assignment]
    monkeypatch.setattr("fl_runtime.agent.link.time", SimpleNamespace(monotonic=lambda: now[0]))
    link._beat()
    assert [(what, round(at, 1)) for what, at in seen] == [
        ("heard", 0.0),
        ("heard", limit - 1.0),
        ("heard", limit),
        ("cancelled", limit + 0.1),
        ("silent", limit + 0.1),
    ]


def upload_with_a_cut(fed: Federation, relay: Relay, seconds: float) -> float:
    """Bytes that went up twice: a job's result of 48 MiB, the link cut in its middle for so long."""
    model = {"tensors": {"w": [SIZE // 4]}, "init": "normal"}
    folder = fed.job("cut", ADD, sites=["site-1"], workflow={"type": "fedavg", "rounds": 1, "model": model})
    relay.pause = 0.001

    def cut() -> None:
        until(lambda: relay.up_bytes > SIZE // 2, 60, "half of it")
        relay.cut()
        time.sleep(seconds)
        relay.down = False

    cutter = threading.Thread(target=cut)
    cutter.start()
    with fed.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        got = load_file(session.download(job, fed.root / "results") / "model.safetensors")["w"]
    cutter.join(70)
    want = np.random.default_rng(0).normal(0.0, 0.1, SIZE // 4).astype(np.float32) + np.float32(1)
    assert np.array_equal(got, want)
    return relay.up_bytes - SIZE


@pytest.mark.slow
@pytest.mark.parametrize("streams", [1, 3])
def test_a_cut_of_ten_seconds_in_an_upload_costs_at_most_one_leaf_for_each_stream(
    stopped: Federation, streams: int
) -> None:
    """Of three seconds with several streams: how long does not matter."""
    relay = through(stopped, "site-1")
    stopped.sites["site-1"].env = {**stopped.sites["site-1"].env, "FEDSPAN_BULK_CONNECTIONS": str(streams)}
    stopped.start("server", "site-1")
    try:
        again = upload_with_a_cut(stopped, relay, 10.0 if streams == 1 else 3.0)
    finally:
        relay.close()
    # TLS and HTTP/2 around 48 MiB, a handshake, heartbeats and logs: under half a MiB
    assert again < streams * LEAF + MIB // 2, f"{again / MIB:.1f} MiB went up again"


@pytest.mark.slow
def test_after_75_seconds_without_a_link_every_site_is_back_before_a_doubled_back_off_would_dial(
    stopped: Federation,
) -> None:
    """One link refuses, the other is a black hole: neither may make its site wait."""
    refusing, dark = through(stopped, "site-1"), through(stopped, "site-2")
    stopped.start("server", "site-1", "site-2")
    try:
        refusing.cut()
        dark.freeze()
        time.sleep(75)
        assert not is_registered(stopped, "site-1")
        assert not is_registered(stopped, "site-2")
        refusing.down = False
        dark.thaw()
        began = time.monotonic()
        stopped.registered("site-1", "site-2")
        took = time.monotonic() - began
    finally:
        refusing.close()
        dark.close()
    assert took < 2.0 + 3 * stopped.start_s  # a back-off that doubles without a limit would be at half a minute
    for site in ("site-1", "site-2"):  # and each said once why it was away
        text = stopped.sites[site].text()
        assert text.partition("registered with")[2].count("next:") == 1, text


def test_a_site_that_returns_takes_part_again_while_the_job_runs(fresh: Federation) -> None:
    """Its process is killed, and its link too: the job goes on without it, and with it when it is there again."""
    marks = fresh.root / "marks"
    marks.mkdir(exist_ok=True)
    marks.chmod(0o777)
    workflow = {"type": "fedavg", "rounds": 1000, "model": {"tensors": {"w": [5]}}, "min_sites": 2, "grace": 0.5}
    config = {"marks": str(marks), "seconds": 0.4}
    folder = fresh.job("returns", SLOW, config=config, workflow=workflow)
    with fresh.session() as session:
        job = session.submit(folder)

        def marked() -> int:
            path = marks / "site-3.txt"
            return len(path.read_text().split()) if path.exists() else 0

        until(lambda: marked() >= 1)
        fresh.sites["site-3"].kill()
        until(lambda: not is_registered(fresh, "site-3"))
        before = len(session.show(job)["history"])
        until(lambda: len(session.show(job)["history"]) >= before + 2, what="the others go on")
        seen = marked()
        fresh.sites["site-3"].start()
        fresh.registered("site-3")
        until(lambda: marked() > seen, what="it takes part again")
        session.abort(job)


@pytest.mark.slow
def test_a_site_whose_heartbeats_are_held_up_is_not_lost_while_bulk_flows(
    relayed: tuple[Federation, Relay],
) -> None:
    """The first connection is control, the second is bulk: a full link may starve the one for the other."""
    fed, relay = relayed
    relay.pause = 0.04
    model = {"tensors": {"w": [16 * MIB // 4]}, "init": "normal"}
    folder = fed.job("held", ADD, sites=["site-1"], workflow={"type": "fedavg", "rounds": 1, "model": model})
    with fed.session() as session:
        job = session.submit(folder)
        until(lambda: relay.down_bytes > 3 * MIB, what="the model is on its way")
        control = 0
        relay.hold(control)
        end = time.monotonic() + LOST_AFTER_S + 2
        start = relay.down_bytes
        while time.monotonic() < end:
            assert is_registered(fed, "site-1")
            assert fed.sites["site-1"].status()["connected"]
            time.sleep(0.2)
        assert relay.down_bytes > start + MIB
        relay.hold()
        relay.pause = 0.0
        session.wait(job, 120)


def test_a_long_way_to_the_server_is_no_reason_not_to_register(stopped: Federation) -> None:
    """300 ms for each direction: TCP and TLS alone take more than a second."""

    class Far(Relay):
        def _pump(self, source, sink, up, number=0):  # type: ignore[no-untyped-def]
            def late(data: bytes) -> None:
                with contextlib.suppress(OSError):
                    sink.sendall(data)

            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    timer = threading.Timer(0.3, late, [data])
                    timer.daemon = True
                    timer.start()

    relay = Far(("127.0.0.1", stopped.port))
    (stopped.sites["site-1"].kit / "local/endpoint.yml").write_text(f"server: 127.0.0.1:{relay.port}\n")
    try:
        stopped.start("server", "site-1")
    finally:
        relay.close()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root: a private /etc/hosts")
def test_a_server_that_moves_to_another_address_of_its_name_is_found_again(stopped: Federation) -> None:
    hosts = stopped.root / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.0.1 fedspan-server.test\n")
    (stopped.sites["site-1"].kit / "local/endpoint.yml").write_text(f"server: fedspan-server.test:{stopped.port}\n")
    site = stopped.sites["site-1"]
    site.env["no_proxy"] = "*"
    inside = [sys.executable, "-m", "fl_runtime", "serve", "--kit", str(site.kit), "--state", str(site.state)]
    (stopped.root / "state").mkdir(exist_ok=True)
    stopped.server.start()
    until(lambda: stopped.server.status().get("running"))
    script = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
    with open(site.log, "ab") as log:
        argv = ["unshare", "-m", "sh", "-c", script, "sh", str(hosts), *inside]
        site.process = subprocess.Popen(argv, env=site.env, stdout=log, stderr=log, start_new_session=True)
    began = time.monotonic()
    stopped.registered("site-1")
    first = time.monotonic() - began
    stopped.server.stop()
    stopped.server.env["FEDSPAN_BIND"] = "127.0.0.2"
    stopped.server.start()
    until(lambda: stopped.server.status().get("running"))
    time.sleep(1.0)
    assert not is_registered(stopped, "site-1")
    Path(hosts).write_text("127.0.0.1 localhost\n127.0.0.2 fedspan-server.test\n")
    stopped.registered("site-1", timeout=5.0 + 3 * first)
