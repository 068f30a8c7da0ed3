"""Which job starts when: decisions by a clock of our own, then real sites with real slots."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import yaml
from federation import TestCA, federation, until
from scripts import ADD

from fl_runtime.agent.capacity import Capacity, FullError, Gpu, Held
from fl_runtime.errors import FlError, JobError
from fl_runtime.hub.scheduler import ANSWER_S, PATIENCE_S, Queued, Scheduler, Step
from fl_runtime.job.resources import Need, parse_bytes, parse_need
from fl_runtime.kit import Kit, read_kit

A, B, C = "a", "b", "c"


def queued(job: str, *wanted: str, minimum: int | None = None, priority: int = 0, at: float = 0.0) -> Queued:
    return Queued(job, priority, at, wanted, minimum, named=minimum is not None)


class World:
    """Sites with one slot each, and a scheduler that asks them; time passes when we say so."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(random.Random(seed))
        self.holder: dict[str, str] = {}
        self.started: dict[str, tuple[str, ...]] = {}

    def turn(self, queue: list[Queued]) -> list[Step]:
        steps = self.scheduler.plan([job for job in queue if job.id not in self.started], self.now)
        for step in steps:
            if step.verb == "ask":
                for site in step.sites:
                    free = self.holder.get(site) in (None, step.job)
                    if free:
                        self.holder[site] = step.job
                    self.scheduler.answered(step.job, site, step.number, free, "" if free else "busy", False)
            elif step.verb == "start":
                self.started[step.job] = step.sites
            else:
                self.release(step.job)
        return steps

    def release(self, job: str) -> None:
        self.holder = {site: holder for site, holder in self.holder.items() if holder != job}


def test_a_job_asks_all_its_sites_and_starts_with_those_that_granted() -> None:
    world = World()
    job = queued("one", A, B, C, minimum=2)
    world.holder[C] = "other"
    assert [step.verb for step in world.turn([job])] == ["ask"]
    world.turn([job])
    assert world.started == {"one": (A, B)}


def test_below_its_minimum_it_releases_all_and_tries_again_later() -> None:
    world = World()
    job = queued("one", A, B, minimum=2)
    world.holder[B] = "other"
    world.turn([job])
    steps = world.turn([job])
    assert [step.verb for step in steps] == ["release"]
    assert A not in world.holder
    assert world.scheduler.waits_for("one") == "b: busy"
    assert world.turn([job]) == []  # it pauses
    world.release("other")
    world.now += 1.0
    world.turn([job])
    world.turn([job])
    assert world.started == {"one": (A, B)}


def test_a_site_that_is_silent_does_not_hold_a_job_for_ever() -> None:
    scheduler = Scheduler(random.Random(0))
    job = queued("one", A, B, minimum=2)
    (ask,) = scheduler.plan([job], 0.0)
    scheduler.answered("one", A, ask.number, True, "", False)
    assert scheduler.plan([job], ANSWER_S / 2) == []
    assert [step.verb for step in scheduler.plan([job], ANSWER_S + 0.1)] == ["release"]
    assert not scheduler.answered("one", B, ask.number, True, "", False)  # too late: it is told to release


def test_a_higher_priority_goes_first_then_the_older_one() -> None:
    world = World()
    jobs = [queued("old", A, at=1), queued("young", A, at=2), queued("urgent", A, at=3, priority=5)]
    order = []
    for _ in range(60):
        world.turn(jobs)
        for job in [job for job in world.started if job not in order]:
            order.append(job)
            world.release(job)
        world.now += 0.5
    assert order == ["urgent", "old", "young"]


@pytest.mark.parametrize("seed", range(20))
def test_two_jobs_that_want_the_same_sites_never_wait_for_each_other(seed: int) -> None:
    world = World(seed)
    jobs = [queued("one", A, B, minimum=2), queued("two", B, A, minimum=2, at=1)]
    running: dict[str, float] = {}
    finished: list[str] = []
    for _ in range(400):
        world.turn(jobs)
        for job in world.started:
            running.setdefault(job, world.now)
        for job, begun in running.items():
            if job not in finished and world.now - begun > 1.0:
                finished.append(job)
                world.release(job)
        world.now += 0.1
    assert sorted(finished) == ["one", "two"]


def test_one_that_has_waited_for_long_is_not_overtaken_for_ever() -> None:
    world = World()
    big = queued("big", A, B, minimum=2)
    taken, number = {A: 0.0, B: 0.7}, 0  # two streams of small jobs that never leave both sites free at once
    world.holder = {A: "small-a", B: "small-b"}
    small: list[Queued] = []
    while "big" not in world.started and world.now < 3 * PATIENCE_S:
        world.now += 0.1
        for site in (A, B):
            holder = world.holder.get(site, "")
            if holder.startswith("small") and world.now - taken[site] > 1.4:
                world.release(holder)
                number += 1
                small.append(queued(f"small-{number}", site, minimum=1, at=world.now))
        world.turn([big, *small])
        for site in (A, B):
            if world.holder.get(site, "").startswith("small") and world.holder[site] in world.started:
                taken.setdefault(world.holder[site], world.now)
                taken[site] = taken[world.holder[site]]
    assert "big" in world.started


def test_sites_that_are_too_small_fail_a_job_that_names_them() -> None:
    scheduler = Scheduler(random.Random(0))
    job = queued("one", A, B, minimum=2)
    (ask,) = scheduler.plan([job], 0.0)
    scheduler.answered("one", A, ask.number, True, "", False)
    scheduler.answered("one", B, ask.number, False, "it has 0 GPUs, the job wants 1", True)
    (step,) = scheduler.plan([job], 0.1)
    assert (step.verb, step.sites, step.why) == ("fail", (A,), "b: it has 0 GPUs, the job wants 1")


# --- the site's count


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return read_kit(TestCA().kit(tmp_path / "kit", "site-1", "site", port=1))


def resources(kit: Kit, **document: object) -> Capacity:
    (kit.path / "local/resources.yml").write_text(yaml.safe_dump(document))
    return Capacity(kit)


def test_gpus_are_given_by_index_and_memory(kit: Kit) -> None:
    gpus = [{"index": 0, "memory": "80GB"}, {"index": 1, "memory": "16GB"}, {"index": 3, "memory": "16GB"}]
    capacity = resources(kit, gpus=gpus, slots=8)
    assert capacity.hold("small", Need(gpus=1)).gpus == ("1",)  # the smallest that will do
    assert capacity.hold("large", Need(gpus=1, gpu_memory=40 * 10**9)).gpus == ("0",)
    with pytest.raises(FullError, match=r"1 of 2 GPUs are free \(large, small\)") as caught:
        capacity.hold("two", Need(gpus=2))
    assert not caught.value.never
    with pytest.raises(FullError, match=r"it has 1 GPUs with 40\.0 GB, the job wants 2") as caught:
        capacity.hold("never", Need(gpus=2, gpu_memory=40 * 10**9))
    assert caught.value.never
    capacity.release("small")
    assert capacity.hold("two", Need(gpus=2)).gpus == ("1", "3")
    assert capacity.figures()["free"]["gpus"] == []


def test_a_lease_ends_by_itself_and_a_running_job_keeps_what_it_has(kit: Kit) -> None:
    capacity = resources(kit, gpus=0, slots=1, memory="8GB")
    capacity.hold("asked", Need(), lease_s=0.01)
    time.sleep(0.02)
    capacity.hold("runs", Need(memory=10**9))
    capacity.release("runs", only_lease=True)
    with pytest.raises(FullError, match="0 of 1 slots are free"):
        capacity.hold("asked", Need(), lease_s=5.0)
    capacity.hold("runs", Need(memory=10**9), lease_s=0.0)  # asked again after a restart of the server
    assert capacity.figures()["jobs"] == ["runs"]
    capacity.release("runs")
    capacity.restore("old", Held((), 0, 1))
    assert capacity.figures()["free"] == {"gpus": [], "memory": 8 * 10**9, "slots": 0}


def test_a_wrong_resources_file_is_told(kit: Kit) -> None:
    with pytest.raises(FlError, match=r"local/resources.yml can't be understood"):
        resources(kit, memory="much").totals()


def test_the_machine_is_looked_at_when_the_file_does_not_say(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    from fl_runtime.agent import capacity

    folder = kit.path.parent / "bin"
    folder.mkdir()
    command = folder / "nvidia-smi"
    command.write_text("#!/bin/sh\necho '0, 81559, GPU-aa'\necho '1, 24576, GPU-bb'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    capacity.probe_gpus.cache_clear()
    assert Capacity(kit).totals().gpus == (Gpu("0", 81559 * 2**20), Gpu("1", 24576 * 2**20))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    capacity.probe_gpus.cache_clear()
    assert Capacity(kit).totals().gpus == (Gpu("GPU-bb", 24576 * 2**20),)
    capacity.probe_gpus.cache_clear()


def test_sizes_and_needs_are_read() -> None:
    assert parse_bytes("16GB") == 16 * 10**9
    assert parse_bytes("1.5 GiB") == 3 * 2**29
    assert parse_need({"gpus": 1, "gpu_memory": "16GB"}) == Need(1, 16 * 10**9)
    for wrong in ({"gpu": 1}, {"gpus": -1}, {"gpus": True}, {"slots": 0}, {"memory": "-1"}):
        with pytest.raises(ValueError):
            parse_need(wrong)


# --- real sites

WAITS = ADD.replace(
    "    model = flare.receive()",
    """    import pathlib, time
    while not pathlib.Path(flare.get_config()["go"]).exists():
        time.sleep(0.02)
    model = flare.receive()""",
)
SHOWS = ADD.replace("flare.init()", "import os\nprint('gpus', os.environ['CUDA_VISIBLE_DEVICES'])\nflare.init()")


def test_jobs_wait_for_room_and_take_turns(tmp_path: Path) -> None:
    with federation(tmp_path, 2, start=False) as fed:
        for site in fed.sites.values():
            gpus = [{"index": 2, "memory": "16GB"}]
            path = site.kit / "local/resources.yml"
            path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "slots": 1, "gpus": gpus}))
        fed.start()
        go = fed.marks / "go"
        workflow = {"type": "fedavg", "rounds": 1, "model": {"tensors": {"w": [3]}}, "min_sites": 2}
        with fed.session() as session:
            first = session.submit(fed.job("first", WAITS, config={"go": str(go)}, workflow=workflow))
            until(lambda: session.show(first)["state"] == "RUNNING", what="the first runs")
            low = session.submit(fed.job("low", SHOWS, workflow=workflow))
            need = {"gpus": 1, "gpu_memory": "12GB"}
            high = session.submit(fed.job("high", SHOWS, priority=3, resources=need, workflow=workflow))
            until(lambda: "waiting for room: site-1: " in session.show(low)["detail"], what="the reason")
            assert f"0 of 1 slots are free ({first})" in session.show(low)["detail"]
            go.touch()
            for job in (first, high, low):
                session.wait(job, 120)
            views = {job: session.show(job) for job in (high, low)}
            assert views[high]["started"] < views[low]["started"]
            assert "gpus 2\n" in "".join(text for _, text in session.logs(high, "site-1"))
            assert "gpus \n" in "".join(text for _, text in session.logs(low, "site-1"))
            never = session.submit(
                fed.job("never", ADD, sites=["site-1"], resources={"gpus": 2}, workflow={**workflow, "min_sites": 1})
            )
            with pytest.raises(JobError, match="site-1: it has 1 GPUs, the job wants 2"):
                session.wait(never, 120)
