"""`python -m fl_runtime.simulator.host CONFIG`: the process that simulated sites come from, and the workers it forks.

It imports what the job's script imports (torch, once) and then forks, so that workers share those pages; it starts no
thread before. CONFIG is a JSON file: socket, folder, script, args, info, preload, gpus.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import queue
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from fl_runtime import localsock
from fl_runtime.simulator.site import Frame, Site, attach, executor_runner, script_runner
from fl_runtime.simulator.world import Output, Switch, World

EPILOGUE_S = 10.0  # for a site's script to end after the job has
MAX_RESTARTS = 3  # as on a real site
LINKED_ABOVE = 256 * 1024  # larger files of a job are hard links in the sites' copies


class Worker:
    """One process: its sites run one at a time."""

    def __init__(self, config: dict[str, Any], number: int) -> None:
        self._config = config
        self._connection = localsock.connect(Path(config["socket"]))
        self._connection.send({"op": "worker", "number": number})
        self._inbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._sites: dict[str, Site] = {}
        output = Output(sys.stdout)
        sys.stdout = sys.stderr = output
        self._switch = Switch(output)
        script = config["script"]
        if script:
            path = Path(config["bundle"]) / script
            self._runner = script_runner(compile(path.read_bytes(), str(path), "exec"))
        else:
            self._runner = executor_runner
        threading.Thread(target=self._read, name="server", daemon=True).start()

    # --- the way to the server

    def _read(self) -> None:
        while (received := self._connection.receive()) is not None:
            (self._inbox if received[0].get("op") in ("task", "end") else self._replies).put(received)
        self._inbox.put(None)
        self._replies.put(None)

    def ask(self, message: dict[str, Any], binary: bytes = b"") -> Frame:
        self._connection.send(message, binary)
        reply = self._replies.get()
        if reply is None:
            os._exit(0)  # the simulation is gone
        return reply

    def send(self, message: dict[str, Any], binary: bytes = b"") -> None:
        with contextlib.suppress(OSError):
            self._connection.send(message, binary)

    # --- sites

    def serve(self) -> None:
        """Until the simulation ends."""
        while (received := self._inbox.get()) is not None:
            message, binary = received
            if message["op"] == "end":
                break
            site = self._sites.get(message["site"]) or self._new(message["site"], message)
            site.offer(message["task"], binary)
            self._run(site)
        for site in self._sites.values():
            if site.waits:
                site.ended = True
                self._turn(site, EPILOGUE_S)
        self.send({"op": "bye"})

    def _new(self, name: str, message: dict[str, Any]) -> Site:
        config = self._config
        folder = Path(config["folder"]) / name
        if not folder.exists():
            shutil.copytree(config["bundle"], folder, copy_function=_link_large)
        world = World(folder, folder / (config["script"] or "executor"), tuple(config["args"]), Path(message["log"]))
        info = {**config["info"], "site": name, "data": message["data"]}
        site = self._sites[name] = Site(name, world, info, self, self._runner)
        attach(site)
        return site

    def _run(self, site: Site) -> None:
        """Until the site waits for its next task; a script that fails is started again, as on a real site."""
        failures = 0
        while True:
            self._turn(site)
            if not site.done:
                return self.send({"op": "waits", "site": site.name})
            failures = 1 if site.answered else failures + 1
            if site.code == 0:
                return self.send({"op": "left", "site": site.name, "why": "its script ended before the job did"})
            if failures > MAX_RESTARTS:
                why = f"its script ended {failures} times with an error (code {site.code}): {site.why}"
                return self.send({"op": "failed", "site": site.name, "why": why})
            if site.answered:  # between tasks: there is none to be given again
                self.send({"op": "waits", "site": site.name})
            site.restart()
            self._switch.fresh(site.world)
            attach(site)
            if site.answered:
                return None

    def _turn(self, site: Site, timeout: float | None = None) -> None:
        self._switch.enter(site.world)
        if not site.resume(timeout):
            os._exit(0)  # a script that goes on after the job's end
        self._switch.leave(site.world)


def _link_large(source: str, target: str) -> None:
    if os.path.getsize(source) > LINKED_ABOVE:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy(source, target)
    else:
        shutil.copy(source, target)


def main() -> int:
    """Fork a worker for each `fork` that comes over the connection; end with it."""
    config = json.loads(Path(sys.argv[1]).read_text())
    os.chdir(config["bundle"])
    for name in config["preload"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    os.chdir("/")
    gc.collect()
    gc.freeze()
    connection = localsock.connect(Path(config["socket"]))
    connection.send({"op": "host"})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers; the server sees their connections
    while (received := connection.receive()) is not None:
        number = int(received[0]["fork"])
        if os.fork() == 0:
            code = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                gpus = config["gpus"]
                if gpus:
                    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
                Worker(config, number).serve()
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
