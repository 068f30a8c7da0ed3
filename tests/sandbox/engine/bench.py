"""Runs one stack through a `pulumi` command by the Automation API and writes down all that can be seen of it.

What is written of each step: the command lines that the Automation API gave to `pulumi`, their exit codes and output,
the engine's events, the exception raised, the provider's calls, the stack's state and what lives in the toy world
afterwards.
"""

from __future__ import annotations

import enum
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi import automation as auto
from pulumi.automation.errors import create_command_error

HERE = Path(__file__).parent


class Thing(pulumi.CustomResource):
    """The toy provider's one resource."""

    address: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, **props: Any) -> None:
        super().__init__("toy:index:Thing", name, {"address": None, **props}, opts)


class Group(pulumi.ComponentResource):
    """A component, to see what the engine makes of parents."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("toy:index:Group", name, None, opts)


class Recorded(auto.PulumiCommand):
    """The `pulumi` command under test, with a list of what it was asked and how it answered."""

    _version: Any = None

    def __init__(self, root: Path) -> None:
        if Recorded._version is None:
            Recorded._version = auto.PulumiCommand(root=str(root), skip_version_check=True).version
        self.command, self.version = str(root / "bin" / "pulumi"), Recorded._version
        self.seen: list[dict[str, Any]] = []
        self.pid = 0

    def run(
        self, args: list[str], cwd: str, additional_env: Mapping[str, str], on_output: Any = None, on_error: Any = None
    ) -> auto.CommandResult:
        argv = args if "--non-interactive" in args else ["--non-interactive", *args]
        env = {**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"}
        pipe = subprocess.PIPE
        child = subprocess.Popen([self.command, *argv], stdout=pipe, stderr=pipe, cwd=cwd, env=env, text=True)
        self.pid = child.pid
        out, err = child.communicate()
        self.seen.append({"argv": argv, "exit": child.returncode, "stdout": out, "stderr": err})
        result = auto.CommandResult(stdout=out.rstrip("\n"), stderr=err.rstrip("\n"), code=child.returncode)
        if child.returncode != 0:
            raise create_command_error(result)
        return result


class Bench:
    """A folder with a stack, a toy world behind a toy provider, and the `pulumi` command of `root`."""

    def __init__(self, root: Path, *, serve: bool = True) -> None:
        """`serve`: whether to run the toy provider; else the port must be set by whoever serves it."""
        self.home = Path(tempfile.mkdtemp(prefix="engine-"))
        self.world = self.home / "world"
        (self.home / "state").mkdir()
        self.provider = self._serve() if serve else None
        self.port = ""
        if self.provider is not None and self.provider.stdout is not None:
            self.port = self.provider.stdout.readline().strip()
        self.command = Recorded(root)
        self.steps: list[dict[str, Any]] = []
        self.program: Callable[[], None] = lambda: None
        self.passphrase = "correct horse"
        self.damaged = False
        self.stack: auto.Stack = None  # type: ignore[assignment]  # there is one after `open`

    def _serve(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "toy_provider.py"), str(self.world)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    # -- the stack ---------------------------------------------------------------------------------------------
    def open(self, name: str = "dev", create: bool = True) -> auto.Stack:
        options = auto.LocalWorkspaceOptions(
            work_dir=str(self._folder("work")),
            pulumi_home=str(self._folder("home")),
            pulumi_command=self.command,
            project_settings=auto.ProjectSettings(
                name="proj", runtime="python", backend=auto.ProjectBackend(url=f"file://{self.home}/state")
            ),
            env_vars={
                "PULUMI_CONFIG_PASSPHRASE": self.passphrase,
                "PULUMI_DEBUG_PROVIDERS": f"toy:{self.port}",
                "PULUMI_SKIP_UPDATE_CHECK": "true",
            },
        )
        maker = auto.create_stack if create else auto.select_stack
        self.stack = maker(name, project_name="proj", program=lambda: self.program(), opts=options)
        return self.stack

    def _folder(self, name: str) -> Path:
        path = self.home / name
        path.mkdir(exist_ok=True)
        return path

    def control(self, **faults: Any) -> None:
        """What the toy world does wrong from now on."""
        self.world.mkdir(exist_ok=True)
        temporary = self.world / "control.new"
        temporary.write_text(json.dumps(faults))
        temporary.replace(self.world / "control.json")

    def things(self) -> dict[str, Any]:
        """What lives in the toy world, by id."""
        path = self.world / "things.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def drift(self, change: Callable[[dict[str, Any]], object]) -> None:
        self.world.mkdir(exist_ok=True)
        things = self.things()
        change(things)
        (self.world / "things.json").write_text(json.dumps(things))

    def calls(self) -> list[dict[str, Any]]:
        """The provider's calls so far."""
        path = self.world / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    # -- steps -------------------------------------------------------------------------------------------------
    def step(self, title: str, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the stack (or `open`) and writes down what was seen. Returns its result or exception."""
        events: list[Any] = []
        if verb in {"up", "preview", "refresh", "destroy", "preview_refresh", "preview_destroy"}:
            kwargs["on_event"] = events.append
        commands, calls = len(self.command.seen), len(self.calls())
        step: dict[str, Any] = {"title": title, "verb": verb}
        result: Any
        try:
            call = self.open if verb == "open" else getattr(self.stack, verb)
            result = call(*args, **kwargs)
        except Exception as error:  # whatever the Automation API raises is the thing to record
            result = error
            step["raised"] = {"class": type(error).__name__, "message": str(error)}
        time.sleep(0.05)  # the last provider call's line
        step["commands"] = self.command.seen[commands:]
        step["provider_calls"] = self.calls()[calls:]
        step["events"] = [_event(event) for event in events]
        step["world"] = self.things()
        step["state"] = self.state()
        self.steps.append(step)
        return result

    def wait_for_create(self, name: str, limit: float = 60) -> None:
        """Returns when the provider has been asked, from now on, to make the thing of that name."""
        seen, end = len(self.calls()), time.monotonic() + limit
        while time.monotonic() < end:
            calls = self.calls()[seen:]
            if any(c["method"] == "Create" and c["name"] == name and not c["preview"] for c in calls):
                return
            time.sleep(0.05)

    def during_create(self, name: str, action: Callable[[int], None], after: float = 0.7) -> None:
        """Does `action(pid of the pulumi command)` beside the next step, while the thing of that name is being made."""

        def later() -> None:
            self.wait_for_create(name)
            time.sleep(after)
            action(self.command.pid)

        threading.Thread(target=later, daemon=True).start()

    @staticmethod
    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    @staticmethod
    def interrupt(pid: int) -> None:
        os.kill(pid, signal.SIGINT)

    def checkpoint(self, name: str = "dev") -> dict[str, Any]:
        """The `latest` of a stack's checkpoint file."""
        path = self.home / "state" / ".pulumi" / "stacks" / "proj" / f"{name}.json"
        return json.loads(path.read_text())["checkpoint"].get("latest") or {}

    def state(self) -> Any:
        """The stacks' checkpoints as they lie in the backend, and the locks."""
        root = self.home / "state" / ".pulumi"
        checkpoints = [] if self.damaged else sorted((root / "stacks").rglob("*.json"))
        return {
            "checkpoints": {p.stem: json.loads(p.read_text()) for p in checkpoints},
            "locks": [json.loads(p.read_text()) for p in sorted((root / "locks").rglob("*.json"))],
        }

    def close(self) -> list[dict[str, Any]]:
        """Ends the provider, removes the folder, and returns the record."""
        if self.provider is not None:
            if self.provider.poll() is None:
                self.provider.terminate()
            self.provider.wait()
            if self.provider.stdout is not None:
                self.provider.stdout.close()
        text = json.dumps(self.steps)
        text = text.replace(str(self.home), "<home>").replace(f"toy:{self.port}", "toy:<port>")
        shutil.rmtree(self.home)
        return json.loads(text)


def _event(event: Any) -> Any:
    """An engine event as plain data, without what is empty."""
    if isinstance(event, dict):
        return {k: _event(v) for k, v in event.items() if v not in (None, {}, [])}
    if isinstance(event, list):
        return [_event(v) for v in event]
    if isinstance(event, enum.Enum):
        return event.value
    if hasattr(event, "__dict__"):
        return {k: _event(v) for k, v in vars(event).items() if v not in (None, {}, [])}
    return event
