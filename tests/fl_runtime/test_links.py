"""The way to the server: proxies, moves, breaks, and what is said when there is no way."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from federation import Federation, free_port, until
from relay import Relay

from fl_runtime.errors import KitError
from fl_runtime.kit import Endpoint, read_kit
from fl_runtime.names import KEEPALIVE_S
from fl_runtime.wire.probe import probe


@pytest.fixture
def proxy() -> Iterator[Relay]:
    relay = Relay()
    yield relay
    relay.close()


def endpoint(fed: Federation, site: str, text: str) -> None:
    (fed.sites[site].kit / "local/endpoint.yml").write_text(text)


def test_a_site_behind_a_proxy_of_its_endpoint_file_registers(stopped: Federation, proxy: Relay) -> None:
    endpoint(stopped, "site-1", f"server: 127.0.0.1:{stopped.port}\nproxy: http://127.0.0.1:{proxy.port}\n")
    stopped.sites["site-1"].env.pop("no_proxy")
    stopped.start("server", "site-1")
    assert f"127.0.0.1:{stopped.port}" in proxy.seen


def test_a_site_behind_a_proxy_of_its_environment_registers(stopped: Federation, proxy: Relay) -> None:
    env = stopped.sites["site-2"].env
    for name in ("grpc_proxy", "no_proxy", "no_grpc_proxy", "NO_PROXY"):
        env.pop(name, None)
    env["https_proxy"] = f"http://127.0.0.1:{proxy.port}"
    stopped.start("server", "site-2")
    assert f"127.0.0.1:{stopped.port}" in proxy.seen


def test_a_proxy_that_says_no_is_named(stopped: Federation) -> None:
    relay = Relay(status="403 Forbidden")
    try:
        endpoint(stopped, "site-1", f"server: 127.0.0.1:{stopped.port}\nproxy: http://127.0.0.1:{relay.port}\n")
        found = probe(read_kit(stopped.sites["site-1"].kit), read_kit(stopped.sites["site-1"].kit).endpoint())
    finally:
        relay.close()
    assert found is not None
    assert found.kind == "proxy"
    assert "403 Forbidden" in found.why


def test_a_moved_server_is_found_through_the_endpoint_file_without_a_new_kit(fresh: Federation) -> None:
    relay = Relay(("127.0.0.1", fresh.port))
    try:
        endpoint(fresh, "site-1", f"server: 127.0.0.1:{relay.port}\n")
        fresh.sites["site-1"].stop()
        fresh.start("site-1")
        relay.cut()  # the old address is gone; the server is "moved" back to its own
        until(lambda: not fresh.server.status()["sites"]["site-1"]["registered"])
        endpoint(fresh, "site-1", f"server: 127.0.0.1:{fresh.port}\n")
        fresh.registered("site-1")
    finally:
        relay.close()


@pytest.mark.slow
def test_a_site_that_stands_still_is_lost_and_comes_back_when_it_goes_on(fresh: Federation) -> None:
    """No reset, no end, just nothing: its sockets are open, and the kernel still acknowledges."""
    site = fresh.sites["site-1"].process
    assert site is not None
    site.send_signal(signal.SIGSTOP)
    try:
        # by the heartbeats, not by gRPC's own pings
        until(lambda: not fresh.server.status()["sites"]["site-1"]["registered"], KEEPALIVE_S / 2, "the server notices")
    finally:
        site.send_signal(signal.SIGCONT)
    fresh.registered("site-1")


@pytest.mark.slow
def test_a_server_that_was_away_is_found_again_two_seconds_and_a_start_later_at_most(fresh: Federation) -> None:
    """The best of a few, for the machine may be busy."""
    took: list[float] = []
    while not took or (min(took) >= 2.0 + fresh.start_s and len(took) < 5):
        fresh.server.kill()
        time.sleep(3)
        fresh.server.start()
        until(lambda: fresh.server.status().get("running"))
        began = time.monotonic()
        fresh.registered(*fresh.sites)
        took.append(time.monotonic() - began)
    assert min(took) < 2.0 + fresh.start_s, took


def test_the_causes_of_no_connection_are_told_apart(stopped: Federation) -> None:
    kit = read_kit(stopped.sites["site-1"].kit)
    found = probe(kit, Endpoint("127.0.0.1", free_port()))
    assert found is not None
    assert found.kind == "refused"
    found = probe(kit, Endpoint("no-such-host.invalid", 1))
    assert found is not None
    assert found.kind == "dns"
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def babble() -> None:
            connection, _ = plain.accept()
            connection.sendall(b"SSH-2.0-hello\r\n")
            connection.recv(100)
            connection.close()

        threading.Thread(target=babble, daemon=True).start()
        found = probe(kit, Endpoint("127.0.0.1", plain.getsockname()[1]))
    assert found is not None
    assert found.kind in ("tls", "closed")


def test_an_expired_or_future_certificate_is_told_with_the_clock(stopped: Federation) -> None:
    now = datetime.now(timezone.utc)
    for name, begin, days, kind in (
        ("old", now - timedelta(days=9), 2, "expired"),
        ("new", now + timedelta(days=2), 9, "clock"),
    ):
        kit = stopped.ca.kit(stopped.root / name, name, "site", port=stopped.port, begin=begin, days=days)
        found = probe(read_kit(kit), Endpoint("127.0.0.1", stopped.port))
        assert found is not None
        assert found.kind == kind
        assert "the clock says" in found.why


def test_another_server_at_the_address_is_told_by_its_name(stopped: Federation) -> None:
    """The address leads to another participant of the same CA: the name does not fit."""
    kit = read_kit(stopped.sites["site-1"].kit)
    stopped.start("server")
    until(lambda: stopped.server.status().get("running"))
    wrong = type(kit)(**{**kit.__dict__, "server_name": "server.other.fedspan"})
    found = probe(wrong, kit.endpoint())
    assert found is not None
    assert found.kind == "name"
    assert "not for server.other.fedspan" in found.why


def test_a_kit_without_an_address_says_how_to_give_one(stopped: Federation) -> None:
    endpoint(stopped, "site-1", "server: null\n")
    with pytest.raises(KitError) as caught:
        read_kit(stopped.sites["site-1"].kit).endpoint()
    assert caught.value.next_step == "start.sh --server HOST:PORT"


def test_an_older_process_of_the_same_kit_gives_way_to_the_newer_and_says_why(fresh: Federation) -> None:
    from federation import Process

    copy = Process(fresh.sites["site-1"].kit, fresh.root / "state" / "copy", fresh.env)
    copy.start()
    try:
        error = until(lambda: fresh.sites["site-1"].status().get("error"))
        assert error["what"] == "Another process connected as site-1"
    finally:
        copy.stop()


def test_two_processes_with_one_state_folder_are_refused(fresh: Federation) -> None:
    from federation import Process

    again = Process(fresh.sites["site-1"].kit, fresh.sites["site-1"].state, fresh.env)
    again.log = fresh.root / "again.log"
    again.start()
    assert again.process is not None
    assert again.process.wait(60) == 15
    assert "This participant runs already" in again.text()
