"""SSH: only the machine that was made, whatever it takes until it answers, and argv as argv."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import io
import socket
import sys
import threading
import time
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from paramiko.common import MSG_SERVICE_REQUEST, MSG_USERAUTH_REQUEST

from deployer.errors import HostKeyError, MachineError, UnreachableError
from deployer.keys import KeyStore, make_pair
from deployer.ssh import HostKeyPin, Machine, connect, fingerprint, forget_host_key, pin_host_key, read_pins
from deployer.ssh.agent import operators_keys
from deployer.ssh.connect import scan_host_key
from deployer.ssh.login import LoginTransport
from deployer.ssh.session import remote_command
from tests.deployer.push.conftest import Box, MakeMachine


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_words_reach_the_command_as_they_are(login: Machine) -> None:
    words = ["it's", "a b", "$HOME", "`id`", "*", "", "ä\nö", "--x=;|&"]
    done = login.run(["python3", "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words])
    import json

    assert json.loads(done.stdout) == words


def test_environment_and_folder_are_set_by_the_command(login: Machine, machine: Box) -> None:
    done = login.run(["sh", "-c", 'echo "$X"; pwd'], env={"X": "a 'b"}, cwd=str(machine.root))
    assert done.stdout.splitlines() == ["a 'b", str(machine.root)]


def test_quoting_is_pure() -> None:
    assert remote_command(["a b", "c"], {"K": "v w"}, "/x y") == "cd '/x y' && env 'K=v w' 'a b' c"


def test_lines_come_while_the_command_runs(login: Machine, machine: Box) -> None:
    seen: list[tuple[str, str]] = []
    heard = machine.root / "heard"

    def on_line(stream: str, line: str) -> None:
        seen.append((stream, line))
        heard.touch()  # what the command waits for

    script = f"echo one; while [ ! -e {heard} ]; do sleep 0.05; done; echo two >&2; sleep 0.2; printf three"
    login.run(["sh", "-c", script], on_line=on_line)
    assert seen == [("stdout", "one"), ("stderr", "two"), ("stdout", "three")]


def test_a_failed_command_tells_status_and_the_end_of_its_stderr(login: Machine) -> None:
    with pytest.raises(MachineError) as caught:
        login.run(["sh", "-c", "echo no space left >&2; exit 28"])
    assert "status 28" in str(caught.value)
    assert "no space left" in str(caught.value)
    assert caught.value.participant == "site-1"
    assert login.run(["false"], check=False).status == 1


def test_large_input_and_output_pass_through_whole(login: Machine) -> None:
    data = bytes(range(256)) * 40_000  # 10 MB, more than a window of the other side
    done = login.run(["sha256sum"], input=data)
    import hashlib

    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_a_command_that_hangs_is_given_up_and_the_connection_lives(login: Machine) -> None:
    with pytest.raises(MachineError, match="did not end within 1 s"):
        login.run(["sleep", "600"], timeout_s=0.7)
    assert login.run(["echo", "on"]).stdout == "on\n"


def test_several_commands_share_one_connection_at_once(login: Machine, machine: Box) -> None:
    """Each ends when the seven others have begun."""
    results: list[str] = []

    def one(number: int) -> None:
        script = f"touch here-{number}; while [ $(ls here-* | wc -l) -lt 8 ]; do sleep 0.05; done; echo {number}"
        results.append(login.run(["sh", "-c", script], cwd=str(machine.root)).stdout.strip())

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [str(number) for number in range(8)]


def test_a_connection_that_breaks_is_an_unreachable_machine(make_machine: MakeMachine) -> None:
    box = make_machine()
    with box.connect() as login:
        threading.Timer(0.5, box.kill).start()
        with pytest.raises(UnreachableError, match="broke"):
            login.run(["sleep", "30"])


def test_another_host_key_is_refused_at_once_and_nothing_is_sent(make_machine: MakeMachine) -> None:
    box = make_machine(pin=False)
    other = make_pair("other").public
    pin_host_key(box.known_hosts, HostKeyPin(box.address, box.port, other))
    started = time.monotonic()
    with pytest.raises(HostKeyError) as caught:
        box.connect(deadline_s=240)
    assert time.monotonic() - started < 60  # not at the deadline
    text = str(caught.value)
    assert fingerprint(other) in text
    assert fingerprint(box.host_public_key) in text
    assert f"ssh-keygen -f {box.known_hosts} -R '[127.0.0.1]:{box.port}'" in text


def test_a_machine_without_a_pin_is_refused(make_machine: MakeMachine) -> None:
    box = make_machine(pin=False)
    with pytest.raises(HostKeyError, match="no host key is pinned"):
        box.connect()
    assert fingerprint(scan_host_key(box.address, box.port)) == fingerprint(box.host_public_key)


def test_either_of_two_pins_is_accepted_while_a_key_is_rotated(make_machine: MakeMachine) -> None:
    box = make_machine()
    pin_host_key(box.known_hosts, HostKeyPin(box.address, box.port, make_pair("next").public), keep_others=True)
    assert len(read_pins(box.known_hosts, box.address, box.port)) == 2
    box.connect().close()


def test_a_machine_that_boots_late_is_waited_for(make_machine: MakeMachine) -> None:
    port = free_port()
    waits: list[str] = []
    host_key = make_pair("late")
    first = make_machine("late", host_key=host_key, port=port)
    first.stop()
    threading.Timer(1.0, lambda: make_machine("late", host_key=host_key, port=port)).start()
    with first.connect(on_wait=lambda reason, waited: waits.append(reason)) as login:
        assert login.run(["echo", "up"]).stdout == "up\n"
    assert any("refuses connections" in reason for reason in waits)


def test_a_port_that_says_nothing_yet_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        def hang_up() -> None:
            for _ in range(100):
                try:
                    connection, _ = silent.accept()
                except OSError:
                    return
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        keys = KeyStore(tmp_path)
        keys.login("digits")
        keys.pin("127.0.0.1", port, make_pair("x").public)
        waits: list[str] = []
        with pytest.raises(UnreachableError) as caught:
            connect(
                "127.0.0.1", port, "fedspan", keys.login_path, keys.known_hosts, 1.5, lambda why, _: waits.append(why)
            )
        assert "no SSH server answers yet" in str(caught.value)
        assert "ssh_from" in str(caught.value)
        assert len(waits) >= 2


def test_a_server_that_stalls_after_its_banner_is_waited_for_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["deployer.ssh.connect"], "DIAL_TIMEOUT_S", 0.5)
    keys = KeyStore(tmp_path)
    keys.login("digits")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        stalled: list[socket.socket] = []

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    stalled.append(listening.accept()[0])
                    stalled[-1].sendall(b"SSH-2.0-slow\r\n")

        threading.Thread(target=greet, daemon=True).start()
        keys.pin("127.0.0.1", port, make_pair("x").public)
        waits: list[str] = []
        with pytest.raises(UnreachableError, match="no SSH server answers yet"):
            connect(
                "127.0.0.1", port, "fedspan", keys.login_path, keys.known_hosts, 3, lambda why, _: waits.append(why)
            )
        assert waits
        for one in stalled:
            one.close()


def test_what_ran_on_a_connection_that_broke_is_told_and_not_how_its_end_failed(
    make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise EOFError

    with make_machine().connect() as login:
        exchange = login.open("cat")
        with monkeypatch.context() as now:
            now.setattr(exchange.channel, "close", broken)
            with pytest.raises(UnreachableError, match="broke"), exchange:
                raise login.lost(EOFError())


def test_a_login_that_is_refused_while_booting_is_retried(make_machine: MakeMachine) -> None:
    box = make_machine(auth_fails=2)
    waits: list[str] = []
    box.connect(on_wait=lambda reason, waited: waits.append(reason)).close()
    assert len(waits) == 2


def test_a_login_that_nobody_answers_is_no_refusal_and_is_tried_again(
    make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["deployer.ssh.connect"], "DIAL_TIMEOUT_S", 2.0)
    with make_machine(auth_silent=1).connect(auth_grace_s=0) as machine:
        assert machine.run(["echo", "in"]).stdout == "in\n"


def test_an_answer_that_comes_before_anybody_waits_for_it_is_heard(
    make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = LoginTransport._send_message

    def taken_off_the_processor(self: LoginTransport, message: paramiko.Message) -> None:
        send(self, message)
        if message.asbytes()[0] == MSG_USERAUTH_REQUEST:
            time.sleep(0.5)

    monkeypatch.setattr(LoginTransport, "_send_message", taken_off_the_processor)
    waits: list[str] = []
    make_machine().connect(on_wait=lambda reason, waited: waits.append(reason)).close()
    assert waits == []


def test_a_server_that_hangs_up_before_the_login_ends_no_command_in_a_wait_without_end(tmp_path: Path) -> None:
    keys, host = KeyStore(tmp_path), make_pair("x")
    keys.login("digits")
    shown = paramiko.Ed25519Key.from_private_key(io.StringIO(host.private))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def hang_up() -> None:
            for _ in range(20):
                try:
                    server = paramiko.Transport(listening.accept()[0])
                except OSError:
                    return
                server.add_server_key(shown)
                server._handler_table[MSG_SERVICE_REQUEST] = lambda _, server=server: server.close()
                with contextlib.suppress(paramiko.SSHException, EOFError):
                    server.start_server(server=paramiko.ServerInterface())

        threading.Thread(target=hang_up, daemon=True).start()
        keys.pin("127.0.0.1", port, host.public)
        with pytest.raises(UnreachableError, match="closed"):
            connect("127.0.0.1", port, "fedspan", keys.login_path, keys.known_hosts, 1.5)


def test_a_login_that_stays_refused_is_told_long_before_the_deadline(make_machine: MakeMachine) -> None:
    box = make_machine(user="somebody-else")
    started = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        box.connect(deadline_s=240, auth_grace_s=1.0)
    assert time.monotonic() - started < 60  # not at the deadline
    assert "refuses the login" in str(caught.value)
    assert f"{box.key_path}.pub" in str(caught.value)


def test_no_agent_and_no_other_key_is_tried(make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent/agent")
    box = make_machine()
    box.key_path.write_text(make_pair("stranger").private)
    with pytest.raises(UnreachableError, match="refuses the login"):
        box.connect(auth_grace_s=0.1)


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's usual key, with a passphrase."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    path = tmp_path / ".ssh" / "id_ed25519"
    path.parent.mkdir()
    path.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return path


def test_an_operators_key_with_a_passphrase_stands_in_nobodys_way(locked: Path) -> None:
    assert operators_keys(agent=True) == []


def test_a_login_key_with_a_passphrase_is_told(locked: Path, make_machine: MakeMachine) -> None:
    box = make_machine()
    box.key_path = locked
    with pytest.raises(UnreachableError, match="it has a passphrase"):
        box.connect()


def test_pins_are_written_by_many_threads_at_once(tmp_path: Path) -> None:
    known_hosts = tmp_path / "ssh" / "known_hosts"
    pins = [HostKeyPin("127.0.0.1", 3000 + number, make_pair(str(number)).public) for number in range(24)]
    threads = [threading.Thread(target=pin_host_key, args=(known_hosts, pin)) for pin in pins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(known_hosts.read_text().splitlines()) == sorted(pin.line for pin in pins)
    assert known_hosts.stat().st_mode & 0o777 == 0o600
    forget_host_key(known_hosts, "127.0.0.1", 3000)
    assert read_pins(known_hosts, "127.0.0.1", 3000) == []
    assert len(known_hosts.read_text().splitlines()) == 23


def hashed(name: str, key: str) -> str:
    """A line of known_hosts as OpenSSH writes it with HashKnownHosts."""
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()} {key}"


def test_hashed_names_in_known_hosts_are_read(tmp_path: Path) -> None:
    key = make_pair("x").public
    lines = [hashed(name, key) for name in ("[127.0.0.1]:2222", "192.0.2.7")]
    (tmp_path / "known_hosts").write_text("\n".join([*lines, "|1|broken ssh-ed25519 AAAA", "# comment"]))
    assert len(read_pins(tmp_path / "known_hosts", "127.0.0.1", 2222)) == 1
    assert len(read_pins(tmp_path / "known_hosts", "192.0.2.7", 22)) == 1
    assert read_pins(tmp_path / "known_hosts", "127.0.0.1", 22) == []


def test_a_forgotten_machine_leaves_hashed_and_shared_lines_too(tmp_path: Path) -> None:
    known_hosts, old, new = tmp_path / "known_hosts", make_pair("old").public, make_pair("new").public
    others = ["# comment", hashed("192.0.2.8", old), f"192.0.2.70 {old}", "|1|broken ssh-ed25519 AAAA", ""]
    mine = [f"192.0.2.7 {old}", f"192.0.2.7\t{old}", hashed("192.0.2.7", old), f"site-1,192.0.2.7,192.0.2.9 {old}"]
    known_hosts.write_text("\n".join([*others, *mine]) + "\n")
    pin_host_key(known_hosts, HostKeyPin("192.0.2.7", 22, new))
    assert [pin.fingerprint for pin in read_pins(known_hosts, "192.0.2.7", 22)] == [fingerprint(new)]
    pin = HostKeyPin("192.0.2.7", 22, new)
    assert known_hosts.read_text().splitlines() == [*others, f"site-1,192.0.2.9 {old}", pin.line]
    forget_host_key(known_hosts, "192.0.2.7", 22)
    assert read_pins(known_hosts, "192.0.2.7", 22) == []
    assert len(read_pins(known_hosts, "192.0.2.9", 22)) == 1
