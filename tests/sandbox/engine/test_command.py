"""The command itself: how it is made, how little it loads, and the commands that run no deployment."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pulumi import automation as auto

from deployer.sandbox import engine

from .bench import Bench, Thing
from .random_programs import opened


@pytest.fixture(scope="module")
def empty(pulumi_root: Path) -> Iterator[Bench]:
    """An empty stack for those who change nothing."""
    with opened(pulumi_root) as bench:
        yield bench


def _run(bench: Bench, *argv: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PULUMI_CONFIG_PASSPHRASE": bench.passphrase, "PULUMI_HOME": str(bench.home / "home")}
    command = [bench.command.command, *argv]
    return subprocess.run(command, cwd=bench.home / "work", env=env, capture_output=True, text=True, check=False)


def test_root_makes_a_command_that_runs_and_leaves_it_alone_the_second_time(tmp_path: Path) -> None:
    root = engine.root(tmp_path)
    command = root / "bin" / "pulumi"
    first = command.stat()
    said = subprocess.run([command, "version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("v3.")
    assert engine.root(tmp_path) == root
    assert command.stat() == first


def test_the_module_is_the_command_too() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "deployer.sandbox.engine", "version"], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("v3.")


def test_an_interpreter_in_a_deep_folder_is_started_by_a_shell(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "with a space" / ("e" * 100)
    deep.mkdir(parents=True)
    python = deep / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    command = tmp_path / "pulumi"
    command.write_text(engine._script(str(python), Path(engine.__file__).parents[3]))
    command.chmod(0o755)
    said = subprocess.run([command, "version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("v3.")


@pytest.mark.parametrize(
    "argv",
    [
        ["version"],
        ["stack", "output", "--json", "--stack", "dev"],
        ["stack", "history", "--json", "--stack", "dev"],
        ["stack", "ls", "--json"],
        ["stack", "select", "--stack", "dev"],
        ["config", "--json", "--stack", "dev"],
        ["about"],
    ],
    ids=" ".join,
)
def test_what_runs_no_deployment_loads_neither_grpc_nor_the_sdk(empty: Bench, argv: list[str]) -> None:
    code = (
        "import sys; from deployer.sandbox.engine.cli import main; code = main(sys.argv[1:]);"
        "bad = sorted({'grpc', 'google.protobuf', 'pulumi', 'cryptography'} & sys.modules.keys());"
        "sys.exit(f'loaded {bad}' if bad else code)"
    )
    env = {**os.environ, "PULUMI_HOME": str(empty.home / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=empty.home / "work",
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_reading_outputs_takes_little_more_than_an_interpreter(empty: Bench) -> None:
    """In seconds of processor time, which other work on the machine does not lengthen as it does the clock's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(5):
        assert _run(empty, "stack", "output", "--json", "--stack", "dev").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 5
    assert used < 0.12


def test_a_deployment_loads_the_protocol_without_the_sdk() -> None:
    code = (
        "import sys; from deployer.sandbox.engine import protos; protos.prepare();"
        "import deployer.sandbox.engine.operation;"
        "sys.exit('the SDK was loaded' if 'pulumi.automation' in sys.modules or 'pulumi.output' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_configuration_is_kept_and_its_secrets_are_encrypted(bench: Bench) -> None:
    stack = bench.stack
    stack.set_config("region", auto.ConfigValue("us-west-2"))
    stack.set_config("proj:token", auto.ConfigValue("hunter2", secret=True))
    stack.set_config("rules[0].port", auto.ConfigValue("22"), path=True)
    stack.set_all_config({"a": auto.ConfigValue("1"), "b": auto.ConfigValue("s3cret", secret=True)})
    token = stack.get_config("token")
    assert (token.value, token.secret) == ("hunter2", True)
    found = stack.get_all_config()
    assert found["proj:region"].value == "us-west-2"
    assert json.loads(found["proj:rules"].value) == [{"port": 22}]
    assert (found["proj:b"].value, found["proj:b"].secret) == ("s3cret", True)
    text = (bench.home / "work" / "Pulumi.dev.yaml").read_text()
    assert "hunter2" not in text
    assert "s3cret" not in text
    stack.remove_config("token")
    stack.remove_all_config(["a", "b"])
    assert set(stack.get_all_config()) == {"proj:region", "proj:rules"}


def test_a_default_provider_is_configured_from_the_stacks_configuration(bench: Bench) -> None:
    bench.stack.set_config("toy:region", auto.ConfigValue("eu-central-1"))
    bench.stack.set_config("toy:key", auto.ConfigValue("hunter2", secret=True))
    bench.program = lambda: Thing("a", size=1) and None
    bench.stack.up(show_secrets=False)
    configured = next(c for c in bench.calls() if c["method"] == "Configure")
    assert configured["args"]["region"] == "eu-central-1"
    assert "hunter2" not in json.dumps(bench.checkpoint())


def test_an_exported_state_comes_back_as_it_was_secrets_and_all(bench: Bench) -> None:
    import pulumi

    def program() -> None:
        Thing("a", note=pulumi.Output.secret("s3cret-input"))
        pulumi.export("hidden", pulumi.Output.secret({"deep": ["x", 1]}))

    bench.program = program
    bench.stack.up(show_secrets=False)
    exported = bench.stack.export_stack()
    assert "s3cret-input" in json.dumps(exported.deployment)
    bench.stack.import_stack(exported)
    assert "s3cret-input" not in json.dumps(bench.checkpoint())
    assert bench.stack.outputs()["hidden"].value == {"deep": ["x", 1]}
    assert set(bench.stack.up(show_secrets=False).summary.resource_changes or {}) == {"same"}


def test_a_state_that_contradicts_itself_is_not_imported(bench: Bench) -> None:
    bench.program = lambda: Thing("a", size=1) and None
    bench.stack.up(show_secrets=False)
    exported = bench.stack.export_stack()
    assert exported.deployment is not None
    exported.deployment["resources"].reverse()
    with pytest.raises(auto.CommandError, match="refers to"):
        bench.stack.import_stack(exported)


def test_a_renamed_stack_keeps_its_resources(bench: Bench) -> None:
    bench.program = lambda: Thing("a", size=1) and None
    bench.stack.up(show_secrets=False)
    bench.stack.rename("prod")
    bench.stack.workspace.select_stack("prod")
    assert set(bench.stack.up(show_secrets=False).summary.resource_changes or {}) == {"same"}
    assert len(bench.things()) == 1
    with pytest.raises(auto.StackNotFoundError):
        bench.stack.workspace.select_stack("dev")


def test_without_a_passphrase_nothing_is_changed(empty: Bench) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_CONFIG")}
    env["PULUMI_HOME"] = str(empty.home / "home")
    command = [empty.command.command, "up", "--client", "127.0.0.1:1", "--stack", "dev", "--yes"]
    done = subprocess.run(command, cwd=empty.home / "work", env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "PULUMI_CONFIG_PASSPHRASE" in done.stderr
    assert not empty.state()["locks"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["up", "--stack", "other"], "no stack named 'other' found"),
        (["up", "--stack", "dev"], "inline programs"),
        (["frobnicate"], "unknown command"),
        (["stack", "init", "no such name!"], "a stack name may only contain"),
        (["plugin", "install", "resource", "aws", "1.0.0"], "installs no plugins"),
        (["stack", "tag", "ls", "--stack", "dev"], "not supported"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_it_can_not_do_it_says_in_one_line(empty: Bench, argv: list[str], says: str) -> None:
    done = _run(empty, *argv)
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
