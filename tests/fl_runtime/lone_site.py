"""A site by itself, for what its agent does with a job's program and needs no server for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from federation import PATIENCE_S, TestCA

from fl_runtime.agent import cgroups
from fl_runtime.agent.isolation import Isolation, choose
from fl_runtime.agent.journal import Journal
from fl_runtime.agent.place import Place, clear
from fl_runtime.job.spec import parse_spec
from fl_runtime.kit import Kit, read_kit


class Site:
    """A site's kit and state, and jobs on it without any server; `close` ends what they have left."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "kits").mkdir()
        self.kit: Kit = read_kit(TestCA().kit(root / "kits/site-1", "site-1", "site", port=1))
        (self.kit.path / "local/policy.yml").write_text("submitters: [lead]\n")
        self.state = root / "state"
        self.state.mkdir(mode=0o700)
        self.journal = Journal(self.state)
        self._jobs: set[str] = set()
        (self.state / "jobs").mkdir()
        (self.state / "jobs/job-2").mkdir(mode=0o750)  # another job, which none of them may see

    def place(self, script: str, how: Isolation, job: str = "job-1") -> Place:
        self._jobs.add(job)
        folder = self.state / "jobs" / job
        (folder / "bundle").mkdir(parents=True)
        (folder / "bundle/train.py").write_text(script)
        place = Place(self.kit, self.state, folder, how, self.journal.blobs)
        place.prepare()
        return place

    def run(self, script: str, how: Isolation, *args: str, memory: int = 0, data: tuple[str, ...] = ()) -> str:
        """Run to the end; what it printed."""
        place = self.place(script, how)
        child = start(place, *args, memory=memory, data=data)
        child.wait(PATIENCE_S)
        text = place.log.read_text()
        clear(place.folder)
        return text

    def close(self) -> None:
        """End what still runs of its jobs, however a test has ended: daemons among it, and who has another user."""
        for process in psutil.process_iter(["cmdline"]):
            if any(Path(word).is_relative_to(self.root) for word in process.info["cmdline"] or []):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        for job in self._jobs:
            cgroups.remove(self.state, job)
        self.journal.close()


def start(
    place: Place,
    *args: str,
    memory: int = 0,
    data: tuple[str, ...] = (),
    note: Callable[[int], None] = lambda pid: None,
) -> subprocess.Popen[bytes]:
    env = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "FEDSPAN_CLIENT_SOCKET": str(place.socket)}
    return place.launch([sys.executable, str(place.bundle / "train.py"), *args], env, 1, data, memory, note)


def how(site: Site, **document: Any) -> Isolation:
    spec = parse_spec({"name": "x", "script": "train.py", **document})
    return choose(site.kit, site.state, "job-1", spec)
