"""Commands on a machine behave as over any SSH, and see nothing of who runs the sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from machine_lab import Lab, run

from deployer.sandbox.machines.session import Commands

Machine = tuple[Lab, dict[str, Any]]


def test_status_stdout_and_stderr_come_apart(machine: Machine) -> None:
    lab, its = machine
    client = lab.ssh(its)
    assert run(client, "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
    assert run(client, "no-such-command")[0] == 127
    assert run(client, "cat", b"in\0put")[1] == b"in\0put"
    _, stdout, _ = client.exec_command("kill -TERM $$")
    assert stdout.channel.recv_exit_status() == -1  # ended by a signal: no status


def test_the_environment_is_the_machines_own(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "ARM_CLIENT_SECRET", "PULUMI_ACCESS_TOKEN", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "operators-secret")
    its = lab.boot()
    _, out, _ = run(lab.ssh(its), "env; pwd")
    root = its["root"]
    lines = out.decode().splitlines()
    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    assert "operators-secret" not in out.decode()
    assert set(seen) - {"_", "SHLVL", "PWD", "OLDPWD"} == {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "FEDSPAN_ROOT", "FEDSPAN_BIND",
        "FEDSPAN_HOSTNAME", "grpc_proxy", "http_proxy", "https_proxy", "no_proxy", "no_grpc_proxy",
    }  # fmt: skip
    assert seen["FEDSPAN_ROOT"] == root
    assert seen["HOME"] == lines[-1] == f"{root}/home/fedspan"
    assert seen["FEDSPAN_BIND"] == its["bind"]
    assert seen["https_proxy"] == its["egress"]
    assert all(part.startswith(root) for part in seen["PATH"].split(":"))
    # The machine's own process has none of it either.
    assert b"operators-secret" not in Path(f"/proc/{its['pid']}/environ").read_bytes()


def test_python_is_there_without_the_sandboxs_packages(machine: Machine) -> None:
    lab, its = machine
    code, out, _ = run(lab.ssh(its), "python3 -c 'import sys; print(sys.prefix == sys.base_prefix)'; which python3")
    assert (code, out.decode().split()) == (0, ["True", f"{its['root']}/usr/bin/python3"])
    status, _, err = run(lab.ssh(its), "python3 -m venv --without-pip $HOME/v && $HOME/v/bin/python -c 'import json'")
    assert (status, err) == (0, b"")
    assert run(lab.ssh(its), "$HOME/v/bin/python -c 'import asyncssh'")[0] == 1


def test_ten_megabytes_in_and_out_arrive_whole(machine: Machine) -> None:
    lab, its = machine
    data = os.urandom(10 << 20)
    stdin, stdout, _ = lab.ssh(its).exec_command("cat", timeout=60)

    def write() -> None:
        stdin.write(data)
        stdin.channel.shutdown_write()

    writer = threading.Thread(target=write)
    writer.start()
    assert hashlib.sha256(stdout.read()).digest() == hashlib.sha256(data).digest()
    writer.join()


def test_a_slow_reader_holds_the_command_back(machine: Machine) -> None:
    lab, its = machine
    _, stdout, _ = lab.ssh(its).exec_command(
        'python3 -u -c "\nimport sys\nfor n in range(400):\n sys.stdout.buffer.write(bytes(1 << 20))\n'
        " print(n, file=open('n', 'w'))\n\""
    )
    count = Path(its["root"], "home/fedspan/n")
    deadline = time.monotonic() + 60
    while not (count.exists() and count.read_text()):
        assert time.monotonic() < deadline, "the command does not begin"
        time.sleep(0.05)
    time.sleep(1.5)
    written = int(count.read_text())
    assert written < 50, f"{written} MiB were taken in though nobody read them"
    stdout.channel.close()


def test_eight_sessions_at_once_on_one_connection(machine: Machine) -> None:
    lab, its = machine
    client = lab.ssh(its)
    results: dict[int, bytes] = {}
    all_here = "while [ $(ls here-* | wc -l) -lt 8 ]; do sleep 0.05; done"  # each waits for the seven others
    threads = [
        threading.Thread(
            target=lambda n=n: results.update({n: run(client, f"touch here-{n}; {all_here}; echo {n}")[1]})
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: f"{n}\n".encode() for n in range(8)}


def test_a_terminal_has_a_size_echoes_and_takes_ctrl_c(machine: Machine) -> None:
    lab, its = machine
    channel = lab.ssh(its).get_transport().open_session()
    channel.get_pty("xterm", 91, 33)
    channel.exec_command("stty size; tty -s && echo terminal; echo ready; sleep 60; echo not-reached")
    out = _read_until(channel, b"ready")
    assert b"33 91" in out
    assert b"terminal" in out
    channel.send(b"\x03")
    assert channel.recv_exit_status() in (-1, 130)
    assert b"not-reached" not in _rest(channel)


def test_an_interactive_shell_prompts_and_follows_a_new_size(machine: Machine) -> None:
    lab, its = machine
    channel = lab.ssh(its).invoke_shell("xterm", 80, 24)
    _read_until(channel, b"$ ")
    channel.resize_pty(100, 40)
    channel.send(b"stty size; echo $FEDSPAN_ROOT\n")
    assert b"40 100" in _read_until(channel, its["root"].encode())
    channel.send(b"exit 3\n")
    assert channel.recv_exit_status() == 3


def _read_until(channel: Any, what: bytes) -> bytes:
    channel.settimeout(10)
    out = b""
    while what not in out:
        chunk = channel.recv(4096)
        assert chunk, f"ended before {what!r}: {out!r}"
        out += chunk
    return out


def _rest(channel: Any) -> bytes:
    out = b""
    while chunk := channel.recv(4096):
        out += chunk
    return out


def test_a_background_process_outlives_its_session_and_is_reaped_by_the_machine(machine: Machine) -> None:
    lab, its = machine
    client = lab.ssh(its)
    _, out, _ = run(client, "setsid sleep 300 > /dev/null 2>&1 < /dev/null & echo $!")
    pid = int(out)
    client.close()
    time.sleep(0.3)
    assert Path(f"/proc/{pid}").exists()
    os.kill(pid, 9)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the machine left a zombie"
        time.sleep(0.05)


def test_a_lost_connection_ends_neither_machine_nor_other_sessions(machine: Machine) -> None:
    lab, its = machine
    one, other = lab.ssh(its), lab.ssh(its)
    one.exec_command("cat > $HOME/half; echo done > $HOME/over")
    one.exec_command("yes")
    one.get_transport().sock.close()
    assert run(other, "echo alive")[1] == b"alive\n"


def test_client_may_set_its_language_and_nothing_else(machine: Machine) -> None:
    lab, its = machine
    channel = lab.ssh(its).get_transport().open_session()
    for name, value in (("LC_ALL", "C"), ("LD_PRELOAD", "/evil.so"), ("PATH", "/usr/bin")):
        channel.set_environment_variable(name, value)
    channel.exec_command("echo $LC_ALL; echo $LD_PRELOAD; echo $PATH")
    lines = _rest(channel).decode().splitlines()
    assert lines == ["C", "", f"{its['root']}/usr/local/bin:{its['root']}/usr/bin"]


def test_a_command_that_ends_while_it_is_being_started_is_reaped_by_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, begin = Commands(tmp_path, {}), asyncio.create_subprocess_exec
    awaited: list[bool] = []

    async def begins(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        child = await begin(*argv, **options)
        awaited.append(commands.awaits(child.pid))  # what the machine asks before it reaps an orphan
        return child

    monkeypatch.setattr(asyncio, "create_subprocess_exec", begins)

    async def one() -> int:
        child = await commands._start(["sh", "-c", "exit 3"], {"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
        assert commands.awaits(child.pid)
        return await child.wait()

    assert asyncio.run(one()) == 3
    assert awaited == [True]
