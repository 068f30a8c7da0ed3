"""Where no service manager runs: kept running, logged, stopped whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from federation import PATIENCE_S, Federation, until

from deployer.poc import Poc
from fl_runtime import supervise as module
from fl_runtime.__main__ import main


def run(*argv: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fl_runtime", *argv], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def supervised(state: Path, script: str) -> None:
    run("supervise", "--state", str(state), "--", sys.executable, "-u", "-c", script)


def test_a_command_is_kept_logged_and_stopped(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    once = f"if not os.path.exists('{mark}'): open('{mark}', 'w'); raise SystemExit(9)"
    script = f"import os, time\nprint('I am', os.getpid())\n{once}\ntime.sleep(99)"
    try:
        supervised(tmp_path, script)
        log = tmp_path / "runtime.log"
        until(lambda: log.exists() and log.read_text().count("I am") == 2)
        assert "ended with code 9; started again" in log.read_text()
        assert "supervised already" in run("supervise", "--state", str(tmp_path), "--", "true", code=15)
        pid = int(log.read_text().split()[-1])
    finally:
        assert "stopped" in run("stop", "--state", str(tmp_path))
    assert not psutil.pid_exists(pid)
    assert not (tmp_path / "supervisor.json").exists()
    assert "nothing runs" in run("stop", "--state", str(tmp_path))


def test_what_a_killed_supervisor_left_is_neither_alive_nor_in_the_way(tmp_path: Path) -> None:
    """After a reboot, too: `fedspan poc down` said for ever that it does not stop."""
    state = tmp_path / "state/site-1"
    state.mkdir(parents=True)
    (tmp_path / "poc.json").write_text(json.dumps({"participants": ["site-1"], "port": 1}))
    (state / "supervisor.json").write_text(json.dumps({"pid": 1, "started": 1, "boot": "another", "command": []}))
    poc = Poc(tmp_path)
    assert not poc._lives("site-1")
    assert "nothing runs" in run("stop", "--state", str(state))
    assert not (state / "supervisor.json").exists()
    assert poc.down() == []


def test_a_command_that_must_not_be_started_again_is_not(tmp_path: Path) -> None:
    supervised(tmp_path, "print('usage'); raise SystemExit(4)")
    until(lambda: not (tmp_path / "supervisor.json").exists())
    assert (tmp_path / "runtime.log").read_text() == "usage\n"


def test_the_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 100)
    writer = module._Supervisor(tmp_path, ["true"], echo=False)
    for number in range(30):
        writer._write(f"line {number:04d} {'x' * 20}\n".encode())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "runtime.log",
        "runtime.log.1",
        "runtime.log.2",
        "runtime.log.3",
    ]
    assert "line 0029" in (tmp_path / "runtime.log").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_full_disk_ends_no_supervisor_and_the_log_says_what_is_missing(tmp_path: Path) -> None:
    log, mark = tmp_path / "runtime.log", tmp_path / "mark"
    log.symlink_to("/dev/full")
    script = f"""import os, time
for number in range(10_000):
    print('I am', os.getpid(), flush=True)
    with open({str(mark)!r}, 'a') as file:
        print(os.getpid(), file=file)
    time.sleep(0.01)
"""
    try:
        supervised(tmp_path, script)
        until(lambda: mark.exists() and mark.read_text().count("\n") > 3)
        pid = mark.read_text().split()[0]
        log.unlink()  # somebody has made room
        until(lambda: log.exists() and log.read_text().count("I am") > 3)
        assert f"bytes are missing here, there was no room\nI am {pid}\n" in log.read_text()
        assert {line.split()[-1] for line in log.read_text().splitlines()[1:-1]} == {pid}  # the same all the time
    finally:
        assert "stopped" in run("stop", "--state", str(tmp_path))
    assert not psutil.pid_exists(int(pid))


@pytest.mark.parametrize("options", [[], ["--foreground"]], ids=["background", "foreground"])
def test_what_can_not_be_noted_is_not_started_and_that_is_told(tmp_path: Path, options: list[str]) -> None:
    code = (
        "import resource, sys\n"
        "from fl_runtime.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"  # no room for a single byte
        "sys.exit(main(sys.argv[1:]))"
    )
    argv = ["supervise", *options, "--state", str(tmp_path), "--", "touch", str(tmp_path / "started")]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 17, done.stderr
    assert "Nothing is started" in done.stderr
    assert "File too large" in done.stderr
    assert f"next: df -h {tmp_path}, and free disk space" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_runtime_itself_is_supervised_comes_back_and_is_stopped(stopped: Federation) -> None:
    state, server = stopped.server.state, stopped.server
    argv = [sys.executable, "-m", "fl_runtime", "serve", "--kit", str(server.kit), "--state", str(state)]
    subprocess.run(
        [sys.executable, "-m", "fl_runtime", "supervise", "--state", str(state), "--", *argv],
        env=server.env,
        check=True,
    )
    try:
        status = until(lambda: server.status() if server.status()["running"] else None)
        assert json.loads(run("status", "--state", str(state)))["role"] == "server"
        psutil.Process(status["pid"]).kill()
        until(lambda: server.status().get("pid") not in (None, status["pid"]))
    finally:
        run("stop", "--state", str(state))
    run("status", "--state", str(state), code=3)


def test_a_kit_that_can_not_be_used_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--kit", str(tmp_path), "--state", str(tmp_path / "s")]) == 4
    assert f"{tmp_path} is not a kit: participant.yml" in capsys.readouterr().err


def test_stop_reaches_a_runtime_that_nobody_supervises(stopped: Federation) -> None:
    stopped.start("server")
    until(lambda: stopped.server.status().get("running"))
    run("stop", "--state", str(stopped.server.state))
    assert stopped.server.process is not None
    assert stopped.server.process.wait(PATIENCE_S) == 0
