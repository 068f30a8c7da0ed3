"""Random programs, changed at random, under random faults and kills, and what must hold whatever happens.

A case is a chain of rounds on one stack. In each round the program is changed, something is made to go wrong, and the
stack is updated, refreshed or partly destroyed; afterwards the state and the toy world are held against each other.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pulumi
from pulumi import ResourceOptions as Opts
from pulumi.runtime.proto import provider_pb2_grpc

from .bench import Bench, Group, Thing
from .seen import topological
from .toy_provider import Toy

ZONES = ("z1", "z2", "z3")


@dataclass(frozen=True)
class Wanted:
    """One thing of a random program."""

    name: str
    size: int
    zone: str
    slot: str
    peers: tuple[str, ...] = ()  # its `peer` inputs come from these
    after: tuple[str, ...] = ()  # depends_on
    grouped: bool = False
    delete_first: bool | None = None
    ignore_size: bool = False
    secret: bool = False


@dataclass
class Story:
    """The random choices of one case. `seed` alone decides them."""

    seed: int
    things: list[Wanted] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        for number in range(self.random.randint(2, 6)):
            self.things.append(self._new(f"t{number}"))

    def _new(self, name: str) -> Wanted:
        pick = self.random
        before = [t.name for t in self.things]
        return Wanted(
            name, pick.randint(1, 3), pick.choice(ZONES), pick.choice("ab"),
            tuple(pick.sample(before, pick.randint(0, min(2, len(before))))),
            tuple(pick.sample(before, pick.randint(0, min(1, len(before))))),
            pick.random() < 0.3, pick.choice((None, None, True, False)), pick.random() < 0.15, pick.random() < 0.3,
        )  # fmt: skip

    def change(self) -> None:
        """Changes, drops and adds some things; nothing refers to what is dropped."""
        pick = self.random
        for place, thing in enumerate(self.things):
            if pick.random() < 0.35:
                what = pick.choice(("size", "zone", "slot", "size"))
                new: Any = {"size": pick.randint(1, 5), "zone": pick.choice(ZONES), "slot": pick.choice("abc")}[what]
                self.things[place] = replace(thing, **{what: new})
        if len(self.things) > 2 and pick.random() < 0.4:
            gone = pick.choice(self.things).name
            self.things = [
                replace(t, peers=tuple(p for p in t.peers if p != gone), after=tuple(a for a in t.after if a != gone))
                for t in self.things
                if t.name != gone
            ]
        if pick.random() < 0.4:
            self.things.append(self._new(f"n{pick.randint(0, 999)}"))

    def program(self) -> Any:
        things = list(self.things)

        def run() -> None:
            group = Group("group")
            made: dict[str, Thing] = {}
            for t in things:
                size: Any = pulumi.Output.secret(t.size) if t.secret else t.size
                inputs = {f"peer{n}": made[p].address for n, p in enumerate(t.peers)}
                options = Opts(
                    parent=group if t.grouped else None, depends_on=[made[a] for a in t.after],
                    delete_before_replace=t.delete_first, ignore_changes=["size"] if t.ignore_size else None,
                )  # fmt: skip
                made[t.name] = Thing(t.name, size=size, zone=t.zone, slot=t.slot, opts=options, **inputs)
            if things:
                pulumi.export("last", made[things[-1].name].address)

        return run

    def faults(self) -> dict[str, Any]:
        """What the world does wrong in this round."""
        pick, out = self.random, {}
        names = [t.name for t in self.things]
        for kind in ("fail_create", "fail_update", "fail_delete", "partial_create"):
            if pick.random() < 0.3:
                out[kind] = {pick.choice(names): f"{kind} for once"}
        return out


@contextlib.contextmanager
def toy_world(folder: Path) -> Iterator[int]:
    """The toy provider on a thread of this process; yields its port."""
    folder.mkdir(parents=True, exist_ok=True)
    server = grpc.server(futures.ThreadPoolExecutor(16))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Toy(folder), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def opened(root: Path) -> Iterator[Bench]:
    """An empty stack for DIR/bin/pulumi beside a toy world of its own; both end with it."""
    bench = Bench(root, serve=False)
    try:
        with toy_world(bench.world) as port:
            bench.port = str(port)
            bench.open()
            yield bench
    finally:
        bench.close()


@dataclass
class Known:
    """What a kill may leave: ids whose making was cut off (nobody knows them but their cloud), and ids whose deletion
    was cut off (the state has them still)."""

    orphans: set[str] = field(default_factory=set)
    ghosts: set[str] = field(default_factory=set)


def live(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """The things of a checkpoint that should be in the world."""
    things = [r for r in checkpoint.get("resources") or [] if r["type"] == "toy:index:Thing"]
    return [r for r in things if not r.get("pendingReplacement")]


def check(bench: Bench, known: Known, *, killed: bool) -> None:
    """What must hold after every command."""
    checkpoint = bench.checkpoint()
    resources = checkpoint.get("resources") or []
    assert topological(resources), "a resource comes before what it needs"
    current = [r["urn"] for r in resources if not r.get("delete")]
    assert len(current) == len(set(current)), "a URN is there twice"
    ids = [r["id"] for r in live(checkpoint)]
    assert len(ids) == len(set(ids)), "an id is there twice"
    world = set(bench.things())
    assert world - set(ids) <= known.orphans, f"the state has lost {world - set(ids) - known.orphans}"
    if not killed:
        assert set(ids) - known.ghosts <= world, f"the state has what is not there: {set(ids) - known.ghosts - world}"
        assert not bench.state()["locks"], "a lock was left"
        pending = [p for p in checkpoint.get("pending_operations") or [] if p["type"] != "creating"]
        assert not pending, "a pending operation was left"
    text = json.dumps(resources)
    assert "Output.secret" not in text


def play(root: Path, seed: int, rounds: int = 4) -> None:
    """Plays one case. Raises AssertionError where something does not hold."""
    story = Story(seed)
    pick = random.Random(seed + 1)
    with opened(root) as bench:
        known = Known()
        for number in range(rounds):
            if number:
                story.change()
            bench.program = story.program()
            _round(bench, story, pick, known)
        _settle(bench, known)


def _round(bench: Bench, story: Story, pick: random.Random, known: Known) -> None:
    how = pick.choice(("calm", "faults", "faults", "kill", "kill", "interrupt", "refresh", "go on"))
    faults = story.faults() if how in {"faults", "go on"} else {}
    names = [t.name for t in story.things]
    if how in {"kill", "interrupt"}:
        faults["delay"] = dict.fromkeys(pick.sample(names, max(1, len(names) // 2)), 0.3)
        faults["delay"].update({f"delete {n}": 0.3 for n in names})
    bench.control(**faults)
    stop = threading.Event()
    if how in {"kill", "interrupt"}:
        threading.Thread(target=_strike, args=(bench, how, pick.random() * 1.2, stop), daemon=True).start()
    before = set(bench.things())
    verb = "refresh" if how == "refresh" else "up"
    bench.command.pid = 0
    options: dict[str, Any] = {"parallel": pick.choice((None, 1, 4))}
    if how == "go on":
        options["continue_on_error"] = True
    bench.step(how, verb, show_secrets=False, **options)
    stop.set()
    time.sleep(0.4 if how in {"kill", "interrupt"} else 0)  # what the provider was doing comes to its end
    if how == "kill":
        pending = {p["resource"]["urn"].rsplit("::", 1)[1] for p in bench.checkpoint().get("pending_operations") or []}
        world, stated = set(bench.things()), {r["id"] for r in live(bench.checkpoint())}
        known.orphans |= {i for i in world - before - stated if i.split("-")[1] in pending}
        known.ghosts |= stated - world
    check(bench, known, killed=how == "kill")
    if how == "kill":
        bench.stack.cancel()
        bench.control()
        if pick.random() < 0.5:
            bench.step("refresh after a kill", "refresh", show_secrets=False, clear_pending_creates=True)
            known.ghosts.clear()
            check(bench, known, killed=False)


def _strike(bench: Bench, how: str, after: float, stop: threading.Event) -> None:
    """Kills or interrupts the command some time after its start, if it still runs."""
    while not bench.command.pid and not stop.is_set():
        time.sleep(0.01)
    time.sleep(0.35 + after)
    if not stop.is_set():
        with contextlib.suppress(ProcessLookupError):
            (Bench.kill if how == "kill" else Bench.interrupt)(bench.command.pid)


def _settle(bench: Bench, known: Known) -> None:
    """Without faults everything comes up, stays as it is, and goes."""
    bench.control()
    # What is gone from the world although the state has it (its deletion was cut off) a refresh finds out.
    bench.stack.refresh(show_secrets=False, clear_pending_creates=True)
    bench.stack.up(show_secrets=False)
    known.ghosts.clear()
    check(bench, known, killed=False)
    again = bench.stack.up(show_secrets=False)
    assert set(again.summary.resource_changes or {}) == {"same"}, f"changed again: {again.summary.resource_changes}"
    bench.stack.destroy(show_secrets=False)
    assert not bench.checkpoint().get("resources"), "something is left in the state"
    left = set(bench.things()) - known.orphans
    assert not left, f"left in the world: {left}"
