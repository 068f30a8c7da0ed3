"""Stacks driven by the Automation API through a `pulumi` command, with a toy provider whose behaviour a test dictates.

FEDSPAN_PULUMI_ROOT=DIR runs them with another command (the real one) instead of the sandbox's stand-in.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.checkpoint import cloud_resources, has_address, pending_operations
from deployer.engine import StackEngine, check_agreed
from deployer.engine_home import EngineHome
from deployer.errors import BusyError, CapacityError, CloudError, Interrupted, MissingToolError, RefusedError
from deployer.interrupts import Interrupts
from deployer.locks import read_locks
from deployer.recover import free_stack
from deployer.runlog import RunLog

TOY = Path(__file__).parents[1] / "sandbox" / "engine" / "toy_provider.py"


class ToyRealm:
    """A realm with one package, `toy`."""

    kind = "sandbox"
    id = "toy"
    ssh_port = 22

    def __init__(self, root: Path, port: str) -> None:
        self.root, self.port = root, port
        self.environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "MARK": "realm"}

    def engine_root(self) -> Path:
        return self.root

    def engine_environment(self) -> dict[str, str]:
        return dict(self.environment)

    @contextmanager
    def plugins(self) -> Iterator[dict[str, str]]:
        yield {"PULUMI_DEBUG_PROVIDERS": f"toy:{self.port}"}

    def my_address(self) -> str:
        return "198.51.100.10"

    def access(self, cloud: str, where: Any) -> Any:
        return None

    def world(self, cloud: str, where: Any, access: Any) -> Any:
        return None

    def enter(self) -> None:
        return


class Bench:
    """A toy world and an engine for it."""

    def __init__(self, folder: Path, port: str) -> None:
        from deployer.sandbox.engine import root

        given = os.environ.get("FEDSPAN_PULUMI_ROOT")
        self.folder, self.world = folder, folder / "world"
        self.realm = ToyRealm(Path(given) if given else root(folder / "engine"), port)
        self.home = EngineHome(folder / "stacks", "fedspan-toy")
        self.home.ensure()
        self.interrupts = Interrupts()
        self.log = RunLog(folder, "up")
        self.seen: list[tuple[str, str, str]] = []

    def engine(self) -> StackEngine:
        return StackEngine(
            "site-1",
            self.home,
            self.realm,
            self.interrupts,
            self.log.file("site-1"),
            lambda state, step: self.seen.append((state, step.action, step.name)),
        )

    def control(self, **faults: Any) -> None:
        (self.world / "control.json").write_text(json.dumps(faults))

    def things(self) -> list[str]:
        path = self.world / "things.json"
        return sorted(json.loads(path.read_text())) if path.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "world").mkdir()
    provider = subprocess.Popen([sys.executable, str(TOY), str(tmp_path / "world")], stdout=subprocess.PIPE, text=True)
    assert provider.stdout is not None
    try:
        yield Bench(tmp_path, provider.stdout.readline().strip())
    finally:
        provider.kill()
        provider.wait()
        provider.stdout.close()
        # a killed engine leaves the SDK's coroutines half-way: let them go here and not in the middle of another test
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


def chain(size: int = 1, zone: str = "z1", names: str = "ab") -> Callable[[], None]:
    def program() -> None:
        import pulumi

        for name in names:
            pulumi.CustomResource("toy:index:Thing", name, {"size": size, "zone": zone})
        pulumi.export("public_ip", "52.1.2.3")

    return program


def test_up_then_no_change_then_down(bench: Bench) -> None:
    engine = bench.engine()
    assert engine.state() is None
    outputs, steps = engine.up(chain())
    assert outputs == {"public_ip": "52.1.2.3"}
    assert sorted((step.action, step.name) for step in steps) == [("create", "a"), ("create", "b")]  # side by side
    assert ("done", "create", "a") in bench.seen
    assert has_address(engine.state())
    assert len(cloud_resources(engine.state())) == 2
    assert bench.engine().preview(chain()).steps == ()
    assert [step.action for step in bench.engine().destroy()] == ["delete", "delete"]
    assert bench.things() == []
    assert bench.engine().state() is None


def test_a_preview_names_what_changes_and_why_and_binds_the_up(bench: Bench) -> None:
    engine = bench.engine()
    engine.up(chain())
    preview = engine.preview(chain(zone="z2"), "agreed.plan")
    assert sorted((step.action, step.name, step.reasons) for step in preview.steps) == [
        ("replace", "a", ("zone",)),
        ("replace", "b", ("zone",)),
    ]
    assert preview.plan_file is not None
    assert preview.plan_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(RefusedError, match="delete or replace what the plan did not show"):
        check_agreed("site-1", preview.steps, ())
    with pytest.raises(RefusedError, match="something else than the plan"):
        engine.up(chain(zone="z3"), preview)
    again = engine.preview(chain(zone="z2"), "agreed.plan")
    engine.up(chain(zone="z2"), again)
    assert again.plan_file is not None
    assert not again.plan_file.exists()


def test_a_failure_names_the_resource_and_the_log(bench: Bench) -> None:
    bench.engine().up(chain(names="a"))  # else it would be begun or not, as the two come
    bench.control(fail_create={"b": "api error InsufficientInstanceCapacity: no capacity in z1"})
    engine = bench.engine()
    with pytest.raises(CapacityError) as caught:
        engine.up(chain())
    assert caught.value.resource == "index.Thing b"
    assert caught.value.participant == "site-1"
    assert caught.value.log is not None
    assert "InsufficientInstanceCapacity" in Path(caught.value.log).read_text()
    assert [urn.rpartition("::")[2] for urn in engine.failed] == ["b"]
    bench.control()
    _, steps = bench.engine().up(chain())
    assert [(step.action, step.name) for step in steps] == [("create", "b")]


def test_a_program_that_raises_shows_no_traceback(bench: Bench) -> None:
    def program() -> None:
        raise ValueError("no such size")

    with pytest.raises(CloudError, match="no such size") as caught:
        bench.engine().up(program)
    assert "Traceback" not in str(caught.value)


def run_beside(work: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    return thread, errors


def wait_for_create(bench: Bench, name: str) -> None:
    path, end = bench.world / "calls.jsonl", time.monotonic() + 60
    while time.monotonic() < end:
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if any(call["method"] == "Create" and call["name"] == name and not call["preview"] for call in calls):
            return
        time.sleep(0.05)
    raise AssertionError("the create was never asked for")


def test_one_interrupt_lets_the_engine_finish_and_save(bench: Bench) -> None:
    bench.control(delay={"a": 2.0})
    thread, errors = run_beside(lambda: bench.engine().up(chain(names="a")))
    wait_for_create(bench, "a")
    bench.interrupts.interrupt()
    thread.join(60)
    assert isinstance(errors[0], Interrupted)
    bench.interrupts = Interrupts()
    state = bench.engine().state()
    assert [entry["id"] for entry in cloud_resources(state)] == bench.things()
    assert pending_operations(state) == []
    bench.interrupts.interrupt()
    with pytest.raises(Interrupted):  # nothing new starts once the operator wants to stop
        bench.engine().up(chain())


def test_two_interrupts_end_it_at_once_and_leave_a_pending_operation(bench: Bench) -> None:
    bench.control(delay={"a": 90.0})
    thread, errors = run_beside(lambda: bench.engine().up(chain(names="a")))
    wait_for_create(bench, "a")
    bench.interrupts.interrupt()
    time.sleep(0.5)
    bench.interrupts.interrupt()
    thread.join(60)
    assert not thread.is_alive()
    assert isinstance(errors[0], Interrupted)
    bench.interrupts = Interrupts()
    assert len(pending_operations(bench.engine().state())) == 1


def test_a_killed_engine_leaves_a_lock_that_is_known_to_be_dead(bench: Bench) -> None:
    bench.control(delay={"a": 20.0})
    engine = bench.engine()
    thread, errors = run_beside(lambda: engine.up(chain(names="a")))
    wait_for_create(bench, "a")
    pid = next(iter(bench.interrupts._engines))
    locks = read_locks(bench.home.state_dir, bench.home.project, "site-1")
    assert [lock.pid for lock in locks] == [pid]
    with pytest.raises(BusyError, match="locked by another command") as caught:
        bench.engine().up(chain(names="a"))
    work = bench.home.work_dir("site-1")
    assert f"when it is certainly dead: pulumi -C {work} cancel --stack site-1 --yes" in str(caught.value)
    os.kill(pid, 9)
    thread.join(60)
    assert isinstance(errors[0], CloudError)
    assert "SIGKILL" in str(errors[0]) or errors[0].why
    bench.engine().unlock()
    assert read_locks(bench.home.state_dir, bench.home.project, "site-1") == []
    assert len(pending_operations(bench.engine().state())) == 1


def test_a_killed_engines_lock_is_taken_away_where_the_backends_locks_are_not_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineHome, "is_local", False)  # as with a bucket
    told: list[str] = []
    crew = SimpleNamespace(
        deployment=SimpleNamespace(home=bench.home),
        engine_named=lambda name: bench.engine(),
        interrupts=bench.interrupts,
        screen=SimpleNamespace(line=told.append),
    )

    def free() -> list[str]:
        return list(free_stack(crew, "site-1"))  # type: ignore[arg-type]

    bench.engine().up(chain(names="b"))
    assert free() == [], "an engine that ended holds nothing"
    bench.control(delay={"a": 20.0})
    thread, _ = run_beside(lambda: bench.engine().up(chain()))
    wait_for_create(bench, "a")
    monkeypatch.setenv("FEDSPAN_ORPHAN_ENGINE_WAIT", "0.1")
    with pytest.raises(BusyError, match="works on it"):
        free()
    os.kill(next(iter(bench.interrupts._engines)), 9)
    thread.join(60)
    assert read_locks(bench.home.state_dir, bench.home.project, "site-1") != []
    assert free() == ["took away the lock of an engine that was killed"]
    assert read_locks(bench.home.state_dir, bench.home.project, "site-1") == []
    assert free() == []


def test_a_checkpoint_that_is_put_back_lies_in_no_file_in_clear(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program() -> None:
        import pulumi

        pulumi.CustomResource("toy:index:Thing", "a", {"size": pulumi.Output.secret("a boot key"), "zone": "z1"})

    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    bench.engine().up(program)
    state = bench.engine().state()
    assert state is not None
    assert "a boot key" in json.dumps(state)
    bench.engine().set_state({**state, "pending_operations": []})
    with pytest.raises(CloudError):  # as when the backend is full, or the engine is killed
        bench.engine().set_state({**state, "resources": "a boot key"})
    assert (bench.engine().state() or {})["resources"] == state["resources"]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and bench.world not in path.parents]
    assert [path for path in files if b"a boot key" in path.read_bytes()] == []


def test_the_engine_gets_a_session_of_its_own_and_the_realms_environment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Ctrl-C at the terminal and the operator's credentials can't reach."""
    from deployer.engine_command import EngineCommand

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "operators")
    command = tmp_path / "bin" / "pulumi"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "if sys.argv[1:] == ['version']:\n    print('v3.260.0')\nelse:\n"
        "    print(json.dumps([os.getsid(0) == os.getpid(), dict(os.environ), sys.argv[1:]]))\n"
    )
    command.chmod(0o755)
    realm = ToyRealm(tmp_path, "1234")
    with (tmp_path / "log").open("w") as log:
        runner = EngineCommand(realm, Interrupts(), "site-1", log)
        reading = json.loads(runner.run(["stack", "ls"], str(tmp_path), {"EXTRA": "1"}).stdout)
        working = json.loads(runner.run(["up", "--yes"], str(tmp_path), {}).stdout)
    for own_session, environment, arguments in (reading, working):
        assert own_session
        assert "AWS_SECRET_ACCESS_KEY" not in environment
        assert environment["MARK"] == "realm"
        assert arguments[0] == "--non-interactive"
    assert "PULUMI_DEBUG_PROVIDERS" not in reading[1]
    assert working[1]["PULUMI_DEBUG_PROVIDERS"] == "toy:1234"


def test_a_pulumi_that_is_too_old_says_what_to_install(tmp_path: Path) -> None:
    from deployer.engine_command import EngineCommand

    command = tmp_path / "bin" / "pulumi"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho v3.50.0\n")
    command.chmod(0o755)
    with (tmp_path / "log").open("w") as log, pytest.raises(MissingToolError, match="is too old"):
        EngineCommand(ToyRealm(tmp_path, "1"), Interrupts(), "site-1", log)


def test_the_passphrase_is_made_once_and_private(tmp_path: Path) -> None:
    home = EngineHome(tmp_path / "stacks", "fedspan-toy")
    assert home.ensure() is True
    text = home.passphrase_path.read_text()
    assert home.ensure() is False
    assert home.passphrase_path.read_text() == text
    assert home.passphrase_path.stat().st_mode & 0o777 == 0o600
    assert EngineHome(tmp_path, "p", "s3://bucket").is_local is False


def test_a_lost_passphrase_is_told_and_never_replaced(tmp_path: Path) -> None:
    home = EngineHome(tmp_path / "stacks", "fedspan-toy")
    home.ensure()
    home.work_dir("site-1").mkdir(parents=True)
    (home.work_dir("site-1") / "Pulumi.site-1.yaml").write_text("encryptionsalt: x\n")
    home.passphrase_path.unlink()
    with pytest.raises(CloudError, match="the passphrase of the stacks is lost") as caught:
        home.ensure()
    assert "put your backup of it back" in str(caught.value)
    assert not home.passphrase_path.exists()


def test_the_backends_url_decides_where_states_and_locks_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("FEDSPAN_BACKEND", f"file://{elsewhere}")
    home = EngineHome(tmp_path / "stacks", "fedspan-toy")
    assert (home.is_local, home.state_dir) == (True, elsewhere)
    monkeypatch.setenv("FEDSPAN_BACKEND", "azblob://states")
    assert (home.is_local, home.backend_url) == (False, "azblob://states")
