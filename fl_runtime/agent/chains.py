"""The filters that hold for a job on a site, its own and the site's, and the processes in which they run."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

from fl_runtime.agent.journal import Journal, TaskRow
from fl_runtime.blobs import Staged
from fl_runtime.errors import JobSpecError, KitError
from fl_runtime.filters.workshop import Workshop, describe
from fl_runtime.job.spec import JobSpec, parse_spec
from fl_runtime.kit import Kit


class Chains:
    """Every method may be called from any thread."""

    def __init__(self, journal: Journal, kit: Kit, state: Path) -> None:
        self._journal = journal
        self._blobs = journal.blobs
        self._kit = kit
        self._state = state
        self._shops: dict[tuple[str, str], Workshop] = {}
        self._lock = threading.Lock()

    def of(self, job: str, way: str) -> list[tuple[list[dict[str, Any]], Path]]:
        """The job's filters, then the site's, each with the folder of their own code."""
        spec = self.spec(job)
        mine = spec.filters.get(way, []) if spec is not None else []
        chains = [(mine, self._state / "jobs" / job / "bundle"), (self.of_site(way), self._kit.path / "local")]
        return [(chain, folder) for chain, folder in chains if chain]

    def of_site(self, way: str) -> list[dict[str, Any]]:
        """The site's own; a policy that can't be read counts as one that must be applied."""
        try:
            filters: list[dict[str, Any]] = self._kit.policy().filters.get(way, [])
        except (KitError, JobSpecError):
            filters = [{"type": "?"}]
        return filters

    def run(
        self,
        task: TaskRow,
        way: str,
        content: dict[str, Any] | None,
        meta: dict[str, Any],
        base: bytes | None,
        releases: int = 1,
    ) -> tuple[list[Staged], bool, dict[str, Any]]:
        """All filters: what they have made, if it is something else than before; whether anything is left; and meta.

        Raises:
            FlError: one failed, or the policy can't be read.
        """
        self._kit.policy()
        output: Path | None = None
        with contextlib.ExitStack() as files:
            for filters, folder in self.of(task.job, way):
                own = any("path" in entry for entry in filters) and folder.name == "bundle"
                target = files.enter_context(self._blobs.spooled(task.length))
                reply = self.shop(task.job, "job" if own else "site").ask(
                    {
                        "op": "filter",
                        "input": content,
                        "base": describe(self._blobs, base),
                        "meta": meta,
                        "filters": filters,
                        "code": str(folder) if any("path" in entry for entry in filters) else None,
                        "output": str(target),
                        "releases": releases,
                        "task": task.name,
                        "site": self._kit.name,
                    }
                )
                meta = reply["meta"]
                if reply["tensors"] != "same":
                    output = target if reply["tensors"] == "written" else None
                    content = {"file": str(target)} if output else None
            return [self._blobs.stage_file(output)] if output else [], content is not None, meta

    def spec(self, job: str) -> JobSpec | None:
        """What the job says; None: it is not known here."""
        row = self._journal.job(job)
        return parse_spec(row.spec) if row is not None and row.spec else None

    def shop(self, job: str, kind: str) -> Workshop:
        """The process for it: `site`, or `job` where the job's own code runs."""
        with self._lock:
            return self._shops.setdefault((job, kind), Workshop(f"{job}/{kind}"))

    def end(self, job: str) -> None:
        """The job is over: whatever runs for it ends."""
        with self._lock:
            shops = [self._shops.pop(key) for key in list(self._shops) if key[0] == job]
        for shop in shops:
            shop.close()

    def close(self) -> None:
        """All of them end."""
        with self._lock:
            shops, self._shops = list(self._shops.values()), {}
        for shop in shops:
            shop.close()
