"""What every workflow stands on: rounds that are committed, calls that are replayed, models that are blobs."""

from __future__ import annotations

import base64
import hashlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_runtime.errors import FlError, JobSpecError
from fl_runtime.models.check import fault, shapes
from fl_runtime.models.tensors import TensorFile
from fl_runtime.workflow.link import Link

log = logging.getLogger("fedspan.workflow")
WEIGHT_KEY = "NUM_STEPS_CURRENT_ROUND"


class QuorumError(FlError):
    """A round can't be closed: too few results."""

    exit_code = 12


@dataclass(frozen=True)
class Model:
    """A model in the hub's blob store. `source` is its file, or its bytes when it is small."""

    blob: str
    source: Path | bytes

    def open(self) -> TensorFile:
        return TensorFile(self.source)


@dataclass(frozen=True)
class Result:
    """One site's accepted answer."""

    site: str
    meta: dict[str, Any]
    source: Path | bytes | None

    @property
    def weight(self) -> float:
        """Steps (or samples) of this round; 1 when the site did not say."""
        value = (self.meta.get("meta") or {}).get(WEIGHT_KEY, 1)
        return float(value) if value is not None else 1.0

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self.meta.get("metrics") or {})

    @property
    def size(self) -> int:
        """Bytes of its model."""
        if isinstance(self.source, Path):
            return self.source.stat().st_size
        return len(self.source or b"")

    @property
    def is_diff(self) -> bool:
        return self.meta.get("params_type") == "DIFF"

    def open(self) -> TensorFile:
        if self.source is None:
            raise FlError("A result holds no model", participant=self.site)
        return TensorFile(self.source)


class Workflow:
    """Subclasses implement `run()`. After a crash it starts afresh: `rounds()` goes on where the last one ended.

    Attributes:
        settings: `workflow` of job.yml.
        state: plain data, committed with each round.
        tensors: models beside the global one (an optimizer's state, the best model), committed too.
        model: the current global model; None before the first.
        rng: the same numbers in every replay of a round.
    """

    def __init__(self, link: Link) -> None:
        hello = link.hello
        self._link = link
        self.job_id = str(hello["job"])
        self.spec: dict[str, Any] = hello["spec"]
        self.settings: dict[str, Any] = self.spec["workflow"]
        self.bundle = Path(hello["bundle"])
        self.state: dict[str, Any] = hello["state"] or {}
        self.tensors: dict[str, Model] = {
            key: Model(entry["blob"], Path(entry["file"]) if entry["file"] else base64.b64decode(entry["data"]))
            for key, entry in (hello.get("tensors") or {}).items()
        }
        self.model: Model | None = None
        self._stop = False
        if hello.get("blob"):
            self.model = Model(hello["blob"], Path(hello["file"]) if hello.get("file") else link.model)
        self._done: int = -1 if hello["round"] is None else int(hello["round"])
        self._round = self._done
        self._index = 0
        self._metrics: dict[str, Any] = {}
        self.rng = self._seeded()

    def run(self) -> None:
        raise NotImplementedError

    # --- rounds

    def rounds(self, count: int) -> Iterator[int]:
        """The rounds that are still to be done, from 0 to count - 1; each is committed when its body is through."""
        self._stop = False
        for number in range(self._done + 1, count):
            self._round, self._index, self._metrics = number, 0, {}
            self.rng = self._seeded()
            begun = time.monotonic()
            yield number
            self._metrics["seconds"] = round(time.monotonic() - begun, 4)
            self._commit()
            if self._stop:
                return

    def stop(self) -> None:
        """This round is the last one of `rounds()`."""
        self._stop = True

    @property
    def finished(self) -> int:
        """How many rounds are committed."""
        return self._done + 1

    @property
    def round(self) -> int:
        """The round that runs."""
        return self._round

    def record(self, **metrics: Any) -> None:
        """Plain data that goes with this round into the job's history."""
        self._metrics.update(metrics)

    def _commit(self) -> None:
        self._link.ask(
            {
                "op": "commit",
                "round": self._round,
                "state": self.state,
                "tensors": {key: model.blob for key, model in self.tensors.items()},
                "model": self.model.blob if self.model else None,
                "metrics": self._metrics,
            }
        )
        self._done = self._round

    def _seeded(self) -> np.random.Generator:
        seed = hashlib.sha256(f"{self.job_id}/{self._round}".encode()).digest()
        return np.random.default_rng(int.from_bytes(seed[:8], "little"))

    # --- calls

    def sites(self) -> list[str]:
        """Who takes part now (in a replay: who did then)."""
        index = self._index
        self._index += 1
        return list(self._link.ask({"op": "sites", "round": self._round, "index": index})[0]["sites"])

    def broadcast_and_wait(
        self,
        name: str,
        model: Model | None,
        *,
        targets: Sequence[str] | None = None,
        min_sites: int | None = None,
        meta: Mapping[str, Any] | None = None,
        tensors: bool = True,
    ) -> list[Result]:
        """Push a task to sites (all that take part by default) and wait until the quorum closes it.

        Args:
            tensors: the answers must hold a model that fits the one that was sent.

        Returns:
            Accepted results in site-name order.

        Raises:
            QuorumError: too few sites gave a result that counts.
        """
        index = self._index
        self._index += 1
        body = {
            "params_type": "FULL" if model else None,
            "start_round": 0,
            "current_round": self._round,
            "total_rounds": self.settings.get("rounds"),
            "meta": dict(meta or {}),
        }
        least = min_sites if min_sites is not None else self.settings.get("min_sites")
        if least is not None and targets is not None:
            least = min(int(least), len(targets))
        settings = {
            "min": least,
            "deadline": self.settings.get("deadline"),
        }
        if self.settings.get("grace") is not None:
            settings["grace"] = self.settings["grace"]
        self._link.post(
            {
                "op": "call",
                "round": self._round,
                "index": index,
                "name": name,
                "targets": list(targets) if targets is not None else None,
                "blob": model.blob if model else None,
                "meta": body,
                "settings": settings,
            }
        )
        return self._collect(index, model, tensors)

    def _collect(self, index: int, model: Model | None, tensors: bool) -> list[Result]:
        expected = None
        if model is not None and tensors:
            with model.open() as sent:
                expected = shapes(sent)
        results: dict[str, Result] = {}
        while True:
            event, binary = self._link.event()
            if (event.get("round"), event.get("index")) != (self._round, index):
                continue  # of a call that is over
            if event["event"] == "result":
                if event["site"] in results:
                    continue
                source = Path(event["file"]) if event.get("file") else (binary or None)
                result = Result(event["site"], event["meta"], source)
                if not event["judged"]:
                    why = self._fault(result, expected, tensors)
                    self._link.post({"op": "judge", "task": event["task"], "ok": why is None, "why": why or ""})
                    if why is not None:
                        log.warning("the result of %s is refused: %s", result.site, why)
                        continue
                if tensors and expected is None and source is not None:
                    with result.open() as first:
                        expected = shapes(first)
                results[result.site] = result
            elif event["event"] == "closed":
                if event["verdict"] == "fail":
                    raise QuorumError(f"Round {self._round} has too few results", why=event["why"])
                if event["missing"]:
                    self.record(missing=event["missing"])
                return [results[site] for site in sorted(event["used"])]

    def _fault(self, result: Result, expected: Any, tensors: bool) -> str | None:
        weight = result.weight
        if not (weight >= 0 and weight < float("inf")):
            return f"its weight is {weight}"
        if not tensors:
            return None
        if result.source is None:
            return "it holds no tensor"
        try:
            with result.open() as file:
                return fault(file, expected) or self.check(result, file)
        except FlError as error:
            return str(error)

    def check(self, result: Result, model: TensorFile) -> str | None:
        """Why a result does not count, beyond what holds for all; None when it does."""
        return None

    # --- models

    def new_file(self, size: int = 0) -> Path:
        """A file for a new model of about `size` bytes; it may be a recycled one, so cut it. Then `keep` it."""
        return Path(self._link.ask({"op": "spool", "size": size})[0]["file"])

    def keep(self, path: Path) -> Model:
        """Make a finished file a blob."""
        small = path.read_bytes() if path.stat().st_size <= 64 * 1024 else None
        reply, _ = self._link.ask({"op": "blob", "file": str(path)})
        return Model(reply["blob"], small if small is not None else Path(reply["file"]))

    def initial_model(self) -> Model | None:
        """`workflow.model`: a safetensors file of the bundle, or a description; None: the sites begin with theirs."""
        wanted = self.settings.get("model")
        if wanted is None:
            return None
        path = self.new_file()
        if isinstance(wanted, str):
            source = (self.bundle / wanted).resolve()
            if not source.is_relative_to(self.bundle.resolve()) or not source.is_file():
                raise JobSpecError("workflow.model names no file of the job", why=wanted)
            TensorFile(source)
            shutil.copyfile(source, path)  # cuts, too
        else:
            from fl_runtime.workflow.initial import make

            make(wanted, path)
        return self.keep(path)

    def finish(self) -> None:
        self._link.ask({"op": "finish"})
