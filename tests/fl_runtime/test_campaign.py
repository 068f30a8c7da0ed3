"""kill -9 at random moments, of every process that a job has: it ends with the undisturbed run's model, bit for bit.

`SEED=n` chooses the moments and the victims, `KILLS=n` how many; a failure shows both and the story.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from federation import Federation, job_processes, keeper_of, until
from safetensors.numpy import load_file

from fl_runtime.admin import Session
from fl_runtime.errors import FlError

ROUNDS = 20

# Marks when a round begins and when `send()` has returned; a lock tells whether two processes work at once.
TRAIN = """
import fcntl, os, pathlib, time
import numpy as np
import fl_runtime.client as flare
flare.init()
site, config = flare.get_site_name(), flare.get_config()
marks = pathlib.Path(config["marks"])
busy = open(marks / f"{site}.busy", "a")
def mark(what, number):
    with open(marks / f"{site}.txt", "a") as file:
        file.write(f"{what} {number} {os.getpid()}\\n")
while flare.is_running():
    model = flare.receive()
    number = model.current_round
    try:
        fcntl.flock(busy, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        mark("twice", number)
    mark("begin", number)
    time.sleep(config["seconds"])
    w = model.params["w"]
    step = np.random.default_rng([number, int(site[-1])]).standard_normal(w.shape).astype(np.float32)
    flare.send(flare.FLModel(params={"w": w * np.float32(0.9) + step}, metrics={"norm": float(np.abs(w).mean())},
                             meta={"NUM_STEPS_CURRENT_ROUND": 10 + int(site[-1])}))
    mark("sent", number)
    fcntl.flock(busy, fcntl.LOCK_UN)
"""


def submit(fed: Federation, session: Session, name: str, seconds: float) -> tuple[str, Path]:
    """The server keeps an optimizer's state and a best model beside the global one; none of them fits into a row."""
    marks = fed.marks / name
    marks.mkdir()
    marks.chmod(0o777)
    workflow = {
        "type": "fedopt",
        "optimizer": {"type": "adam", "lr": 0.1},
        "rounds": ROUNDS,
        "model": {"tensors": {"w": [100_000]}, "init": "normal"},
        "best": {"metric": "norm", "mode": "max"},
        "min_sites": 3,
    }
    folder = fed.job(name, TRAIN, config={"marks": str(marks), "seconds": seconds}, workflow=workflow)
    return session.submit(folder), marks


def models(fed: Federation, session: Session, job: str) -> dict[str, np.ndarray]:
    results = session.download(job, fed.root / f"results-{job}")
    return {name: load_file(results / f"{name}.safetensors")["w"] for name in ("model", "best")}


class Killer:
    """Kills what lives, as often as a job promises to survive: a script that ends four times without a finished task
    between, or a job's process on the server six times without a finished round, is given up."""

    def __init__(self, fed: Federation, session: Session, job: str, marks: Path, seed: int) -> None:
        self.fed, self.session, self.job, self.marks = fed, session, job, marks
        self.rng = np.random.default_rng(seed)
        self.story: list[str] = []
        self.victims: Counter[str] = Counter()
        self.round, self._state = 0, ""
        self._hits: Counter[tuple[str, int]] = Counter()
        self._begun = time.monotonic()

    def state(self) -> str:
        """The job's state; its round goes into `round`. Both as they were last, while the server is away."""
        with contextlib.suppress(FlError):
            view = self.session.show(self.job)
            self._state, self.round = str(view["state"]), int(view["round"])
        return self._state

    def strike(self) -> None:
        """One kill at a random moment; none when the chosen one does not live, or had its share."""
        time.sleep(self.rng.uniform(0.02, 0.6))
        site = f"site-{self.rng.integers(1, 4)}"
        kind = ["server", "agent", "workflow", "script", "keeper"][self.rng.integers(5)]
        if kind in ("server", "agent"):
            process = self.fed.server if kind == "server" else self.fed.sites[site]
            process.kill()
            process.start()
        else:
            running = job_processes(self.job)
            found = running.get("server" if kind == "workflow" else site)
            if found is None:
                return
            share = (site, self._sent(site)) if kind != "workflow" else ("server", self.round)
            if self._hits[share] >= 3:
                return
            self._hits[share] += 1
            try:
                target = keeper_of(found) if kind == "keeper" else found
                target.kill()
            except psutil.NoSuchProcess:
                return
        who = kind if kind in ("server", "workflow") else f"{kind} of {site}"
        self.victims[kind] += 1
        self.story.append(f"{time.monotonic() - self._begun:6.2f} s, round {self.round}: {who}")

    def _sent(self, site: str) -> int:
        path = self.marks / f"{site}.txt"
        return path.read_text().count("sent") if path.exists() else 0


@pytest.mark.slow
def test_killed_at_random_moments_a_job_ends_with_the_undisturbed_model(fresh: Federation) -> None:
    seed, kills = int(os.environ.get("SEED", "4")), int(os.environ.get("KILLS", "36"))
    with fresh.session() as session:
        job, _ = submit(fresh, session, "undisturbed", 0.0)
        session.wait(job, 120)
        wanted = models(fresh, session, job)
        job, marks = submit(fresh, session, "disturbed", 0.9)
        until(lambda: session.show(job)["state"] == "RUNNING")
        killer = Killer(fresh, session, job, marks, seed)
        try:
            while sum(killer.victims.values()) < kills:
                assert killer.state() not in ("FINISHED", "FAILED", "ABORTED"), session.show(job)
                if sum(killer.victims.values()) > kills * (killer.round + 2) / ROUNDS:
                    time.sleep(0.1)  # so that every round has its share, in bursts
                else:
                    killer.strike()
            view = session.wait(job, 150)
            got = models(fresh, session, job)
        except BaseException:
            print(f"SEED={seed} KILLS={kills}", *killer.story, sep="\n")
            raise
    print(f"SEED={seed} KILLS={kills}", *killer.story, sep="\n")
    assert kills < 30 or len(killer.victims) == 5, killer.victims  # each kind of process had its turn
    for name in wanted:
        assert np.array_equal(got[name], wanted[name]), name
    assert [entry["round"] for entry in view["history"]] == list(range(ROUNDS))
    assert all(len(entry["sites"]) == 3 for entry in view["history"])
    for site in fresh.sites:
        told = [line.split() for line in (marks / f"{site}.txt").read_text().splitlines()]
        assert "twice" not in {what for what, *_ in told}, f"{site} did a task twice at once: {told}"
        sent: set[str] = set()
        for what, number, _ in told:
            assert what != "begin" or number not in sent, f"{site} computed a finished result again: {told}"
            if what == "sent":
                sent.add(number)
