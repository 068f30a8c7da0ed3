"""What this site has for jobs, and who holds it: GPUs by index and memory, memory, slots. The count here is the truth.

`local/resources.yml` says what jobs may take (`gpus: 2` or `[{index: 0, memory: 80GB}]`, `memory: 32GB`, `slots: 2`);
what it leaves out is what the machine has: `nvidia-smi` or /dev/nvidia*, all memory, a slot for each CPU.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_runtime.errors import KitError
from fl_runtime.job.resources import Need, parse_bytes, show_bytes
from fl_runtime.kit import Kit
from fl_runtime.processes import job_environment


@dataclass(frozen=True)
class Gpu:
    """`index`: what CUDA_VISIBLE_DEVICES takes. `memory` in bytes, 0 = not known."""

    index: str
    memory: int = 0


@dataclass(frozen=True)
class Totals:
    gpus: tuple[Gpu, ...]
    memory: int
    slots: int


@dataclass
class Held:
    """What a job has here; `until` (monotonic) is the end of its lease, None once it runs."""

    gpus: tuple[str, ...]
    memory: int
    slots: int
    until: float | None = None


class FullError(Exception):
    """There is not enough: `never` says that it will not do to wait."""

    def __init__(self, why: str, never: bool = False) -> None:
        super().__init__(why)
        self.never = never


class Capacity:
    """Every method may be called from any thread."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()

    def hold(self, job: str, need: Need, lease_s: float | None = None) -> Held:
        """Set aside what the job needs; what it has already stays as it is, under a new lease (None = until released).

        Raises:
            FullError: there is not enough.
            KitError: local/resources.yml is wrong.
        """
        totals = self.totals()
        now = time.monotonic()
        with self._lock:
            self._expire(now)
            known = self._held.get(job)
            held = known or self._choose(totals, need)
            if known is None or known.until is not None:  # what runs stays without an end
                held.until = None if lease_s is None else now + lease_s
            self._held[job] = held
            return held

    def restore(self, job: str, held: Held) -> None:
        """A job that runs since an earlier life of this agent."""
        with self._lock:
            self._held[job] = held

    def release(self, job: str, only_lease: bool = False) -> None:
        """Give back; with `only_lease` not what a running job has."""
        with self._lock:
            held = self._held.get(job)
            if held is not None and not (only_lease and held.until is None):
                del self._held[job]

    def figures(self) -> dict[str, Any]:
        """For people, and for the server: what there is, what is free, who holds the rest."""
        totals = self.totals()
        with self._lock:
            self._expire(time.monotonic())
            free = self._free(totals)
            return {
                "gpus": [{"index": gpu.index, "memory": gpu.memory} for gpu in totals.gpus],
                "memory": totals.memory,
                "slots": totals.slots,
                "free": {"gpus": [gpu.index for gpu in free.gpus], "memory": free.memory, "slots": free.slots},
                "jobs": sorted(self._held),
            }

    def _expire(self, now: float) -> None:
        for job in [job for job, held in self._held.items() if held.until is not None and held.until < now]:
            del self._held[job]

    def _free(self, totals: Totals) -> Totals:
        taken = {index for held in self._held.values() for index in held.gpus}
        return Totals(
            tuple(gpu for gpu in totals.gpus if gpu.index not in taken),
            totals.memory - sum(held.memory for held in self._held.values()),
            totals.slots - sum(held.slots for held in self._held.values()),
        )

    def _choose(self, totals: Totals, need: Need) -> Held:
        fitting = [gpu for gpu in totals.gpus if gpu.memory >= need.gpu_memory]
        if len(fitting) < need.gpus:
            each = f" with {show_bytes(need.gpu_memory)}" if need.gpu_memory else ""
            raise FullError(f"it has {len(fitting)} GPUs{each}, the job wants {need.gpus}", never=True)
        if totals.memory < need.memory:
            raise FullError(f"it has {show_bytes(totals.memory)}, the job wants {show_bytes(need.memory)}", never=True)
        if totals.slots < need.slots:
            raise FullError(f"it has {totals.slots} slots, the job wants {need.slots}", never=True)
        free = self._free(totals)
        holders = ", ".join(sorted(self._held))
        gpus = sorted((gpu for gpu in free.gpus if gpu in fitting), key=lambda gpu: gpu.memory)[: need.gpus]
        if len(gpus) < need.gpus:
            raise FullError(f"{len(gpus)} of {need.gpus} GPUs are free ({holders})")
        if free.memory < need.memory:
            raise FullError(f"{show_bytes(max(0, free.memory))} of {show_bytes(need.memory)} are free ({holders})")
        if free.slots < need.slots:
            raise FullError(f"{max(0, free.slots)} of {need.slots} slots are free ({holders})")
        return Held(tuple(gpu.index for gpu in gpus), need.memory, need.slots)

    def totals(self) -> Totals:
        """What jobs may take here, as local/resources.yml says now.

        Raises:
            KitError: a value there can't be.
        """
        named = self._kit.resources()
        try:
            slots = named.get("slots")
            return Totals(
                self._gpus(named.get("gpus")),
                parse_bytes(named["memory"]) if named.get("memory") is not None else _machine_memory(),
                max(0, int(slots)) if slots is not None else os.cpu_count() or 1,
            )
        except (ValueError, TypeError, KeyError) as error:
            raise KitError(
                "local/resources.yml can't be understood",
                participant=self._kit.name,
                why=str(error),
                next_step="write e.g. `gpus: 1`, `memory: 32GB`, `slots: 2`",
            ) from None

    def _gpus(self, named: Any) -> tuple[Gpu, ...]:
        if isinstance(named, list):
            return tuple(
                Gpu(str(entry["index"]), parse_bytes(entry.get("memory", 0)))
                if isinstance(entry, Mapping)
                else Gpu(str(entry))
                for entry in named
            )
        if named == 0:
            return ()
        found = probe_gpus()
        if named is None:
            return found
        told = int((self._kit.gpus or {}).get("memory_gib") or 0) * 1024**3
        return (*found, *(Gpu(str(index), told) for index in range(len(found), int(named))))[: int(named)]


@functools.lru_cache(maxsize=1)
def probe_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine that we may use (CUDA_VISIBLE_DEVICES of the agent holds for its jobs). Asked once."""
    ours = os.environ.get("CUDA_VISIBLE_DEVICES")
    found: tuple[Gpu, ...] = ()
    argv = ["nvidia-smi", "--query-gpu=index,memory.total,uuid", "--format=csv,noheader,nounits"]
    try:
        env = job_environment({})
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, env=env)
        rows = [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines() if done.returncode == 0]
    except (OSError, subprocess.TimeoutExpired):
        rows = []
    if rows:
        known = {name: int(row[1]) * 1024**2 if row[1].isdigit() else 0 for row in rows for name in (row[0], row[2])}
        names = [row[0] for row in rows] if ours is None else [name.strip() for name in ours.split(",") if name.strip()]
        found = tuple(Gpu(name, known.get(name, 0)) for name in names)
    elif ours is not None:
        found = tuple(Gpu(name.strip()) for name in ours.split(",") if name.strip() not in ("", "-1"))
    else:
        nodes = sorted(
            int(match[1]) for path in glob.glob("/dev/nvidia*") if (match := re.fullmatch(r".*?(\d+)", path))
        )
        found = tuple(Gpu(str(number)) for number in nodes)
    return found


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
