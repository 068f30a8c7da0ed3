"""Protocol versions: a side speaks its own major and the one before; everything else is told how to come up."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest
from federation import PATIENCE_S, Federation, Process, until
from scripts import ADD

from fl_runtime.kit import read_kit
from fl_runtime.names import PROTOCOL_MAJOR, PROTOCOL_MINOR
from fl_runtime.proto import fedspan_pb2 as pb
from fl_runtime.wire import rpc, tls, versions

# A process of the protocol before this one: it says so, and can't know what came later.
OLDER = f"""
import sys
import fl_runtime.names as names
names.PROTOCOL_MAJOR, names.PROTOCOL_MINOR = {PROTOCOL_MAJOR - 1}, 0
from fl_runtime.__main__ import main
sys.exit(main())
"""


def dial(fed: Federation, major: int, minor: int = 0, version: str = "0.0.1") -> list[pb.ToParticipant]:
    """What the hub sends to a Hello, until half a second after its first word."""
    kit = read_kit(fed.sites["site-1"].kit)
    got: list[pb.ToParticipant] = []
    answered = threading.Event()

    def messages() -> Iterator[pb.ToHub]:
        yield pb.ToHub(hello=pb.Hello(major=major, minor=minor, version=version, clock_ms=int(time.time() * 1000)))
        answered.wait(PATIENCE_S)
        time.sleep(0.5)

    with tls.channel(kit, kit.endpoint()) as channel:
        for message in rpc.HubStub(channel).connect(messages(), timeout=PATIENCE_S):
            got.append(message)
            answered.set()
    return got


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    """Only a server; the tests are its sites."""
    fed = Federation(tmp_path_factory.mktemp("federation"), sites=2)
    try:
        fed.start("server")
        until(lambda: fed.server.status().get("running"))
        yield fed
    finally:
        fed.stop()


@pytest.mark.parametrize("back", [0, 1])
def test_this_major_and_the_one_before_are_welcomed_with_what_they_speak(server: Federation, back: int) -> None:
    before = time.time()
    welcome = dial(server, PROTOCOL_MAJOR - back, 0)[0].welcome
    assert (welcome.major, welcome.federation) == (PROTOCOL_MAJOR - back, "digits")
    assert welcome.incarnation
    assert before - 0.1 < welcome.clock_ms / 1000 < time.time() + 0.1


def test_a_site_that_is_too_old_is_told_the_command_that_brings_it_up(server: Federation) -> None:
    (answer,) = dial(server, PROTOCOL_MAJOR - 2, version="0.0.1")
    assert answer.refusal.why.startswith("the site is too old: the server runs fedspan ")
    assert answer.refusal.next.startswith("python3 -m pip install --upgrade 'fedspan==")
    assert (answer.refusal.major, answer.refusal.minor) == (PROTOCOL_MAJOR, PROTOCOL_MINOR)


def test_a_site_that_is_too_new_is_told_that_the_server_must_come_up(server: Federation) -> None:
    (answer,) = dial(server, PROTOCOL_MAJOR + 1, version="9.9")
    assert "the server is too old" in answer.refusal.why
    assert answer.refusal.next == "on the server: python3 -m pip install --upgrade 'fedspan==9.9', then start it again"


def test_the_first_message_must_be_a_hello(server: Federation) -> None:
    import grpc

    kit = read_kit(server.sites["site-1"].kit)
    with tls.channel(kit, kit.endpoint()) as channel, pytest.raises(grpc.RpcError) as caught:
        list(rpc.HubStub(channel).connect(iter([pb.ToHub(heartbeat=pb.Heartbeat())]), timeout=PATIENCE_S))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_messages_that_came_later_are_not_sent_to_a_peer_of_the_older_protocol() -> None:
    kinds = {field.name for message in (pb.ToHub, pb.ToParticipant) for field in message.DESCRIPTOR.fields}
    assert {kind for kind in kinds if not versions.knows(1, kind)} >= {"revocations"}
    assert all(versions.knows(PROTOCOL_MAJOR, kind) for kind in kinds)
    assert all(versions.knows(1, kind) for kind in ("hello", "task", "task_result", "job_start", "refusal"))


def older(process: Process) -> None:
    """Make a process one of the protocol before."""
    original = process.start

    def start() -> None:
        import subprocess

        real = subprocess.Popen

        def popen(argv, **options):
            return real([sys.executable, "-c", OLDER, *argv[3:]], **options)

        subprocess.Popen = popen  # type: ignore[assignment,misc]
        try:
            original()
        finally:
            subprocess.Popen = real  # type: ignore[misc]

    process.start = start  # type: ignore[method-assign]


def test_a_site_of_the_protocol_before_takes_part_in_a_job(stopped: Federation) -> None:
    older(stopped.sites["site-2"])
    stopped.start("server", "site-1", "site-2")
    workflow = {"type": "fedavg", "rounds": 2, "model": {"tensors": {"w": [5]}}}
    folder = stopped.job("mixed", ADD, sites=["site-1", "site-2"], workflow=workflow)
    with stopped.session() as session:
        view = session.wait(session.submit(folder), 120)
    assert [entry["state"] for entry in view["sites"].values()]
    assert len(view["history"]) == 2


def test_a_site_finds_the_way_to_a_server_of_the_protocol_before(stopped: Federation) -> None:
    older(stopped.server)
    stopped.start("server")
    until(
        lambda: stopped.server.status()["running"], what="the server listens"
    )  # else the site tells, rightly, that nobody answers yet
    stopped.start("site-1")
    text = stopped.sites["site-1"].text()
    assert f"the server speaks protocol {PROTOCOL_MAJOR - 1}, and so do we from now on" in text
    assert "next:" not in text
