"""What every workflow stands on: rounds that are committed, calls that are replayed, models that are blobs."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fl_runtime.errors import FlError
from fl_runtime.models.check import fault, shapes
from fl_runtime.models.tensors import TensorFile
from fl_runtime.names import prelude
from fl_runtime.workflow.calls import Calls
from fl_runtime.workflow.link import Link
from fl_runtime.workflow.records import Model, QuorumError, Result
from fl_runtime.workflow.store import ModelStore

__all__ = ["Model", "QuorumError", "Result", "Workflow"]


class Workflow:
    """Subclasses implement `run()`. After a crash it starts afresh: `rounds()` goes on where the last one ended, and
    inside of a round each call gets its recorded answers.

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
            key: Model(entry["blob"], Path(entry["file"]) if "file" in entry else base64.b64decode(entry["data"]))
            for key, entry in (hello.get("tensors") or {}).items()
        }
        self.model: Model | None = None
        self._stop = False
        if hello.get("blob"):
            self.model = Model(hello["blob"], Path(hello["file"]) if hello.get("file") else link.model)
        self._done: int = -1 if hello["round"] is None else int(hello["round"])
        self._round = self._done
        self._metrics: dict[str, Any] = {}
        self.store = ModelStore(link, self.bundle)
        self.calls = Calls(link, hello["orders"])
        self.calls.begin(prelude(self._done))  # what is asked for before `rounds()`
        self.rng = self._seeded()

    def run(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        self._link.ask({"op": "finish"})

    # --- rounds

    def rounds(self, count: int) -> Iterator[int]:
        """The rounds that are still to be done, from 0 to count - 1; each is committed when its body is through."""
        self._stop = False
        for number in range(self._done + 1, count):
            self.begin(number)
            begun = time.monotonic()
            yield number
            self._metrics["seconds"] = round(time.monotonic() - begun, 4)
            self.commit()
            if self._stop:
                return

    def begin(self, number: int) -> None:
        self._round, self._metrics = number, {}
        self.calls.begin(number)
        self.rng = self._seeded()

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

    def commit(self) -> None:
        """The boundary: round, state, model and metrics are durable, and what the round consumed is released."""
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

    def now(self) -> float:
        """Unix seconds; in a replay what it was then."""
        return float(self.calls.recorded("now", time.time()))

    # --- calls

    def sites(self) -> list[str]:
        """Who takes part now (in a replay: who did then)."""
        return self.calls.sites()

    def broadcast_and_wait(
        self,
        name: str,
        model: Model | None,
        *,
        targets: Sequence[str] | None = None,
        min_sites: int | None = None,
        meta: Mapping[str, Any] | None = None,
        tensors: bool = True,
        blobs: Mapping[str, Model] | None = None,
    ) -> list[Result]:
        """Push a task to sites (all that take part by default) and wait until the quorum closes it.

        Args:
            tensors: the answers must hold a model that fits the one that was sent.
            blobs: more models that go with the task.

        Returns:
            Accepted results in site-name order.

        Raises:
            QuorumError: too few sites gave a result that counts.
        """
        body: dict[str, Any] = {
            "params_type": "FULL" if model else None,
            "start_round": 0,
            "current_round": self._round,
            "total_rounds": self.settings.get("rounds"),
            "meta": dict(meta or {}),
        }
        if blobs:
            body["blobs"] = {key: extra.blob for key, extra in blobs.items()}
        least = min_sites if min_sites is not None else self.settings.get("min_sites")
        if least is not None and targets is not None:
            least = min(int(least), len(targets))
        settings = {"min": least, **{key: self.settings.get(key) for key in ("deadline", "grace", "late")}}
        expected = None
        if model is not None and tensors:
            with model.open() as sent:
                expected = shapes(sent)

        def judge(result: Result) -> str | None:
            return self._fault(result, expected, tensors)

        def took(result: Result) -> None:  # without a model before, the first result says what a model is
            nonlocal expected
            if tensors and expected is None and result.source is not None:
                with result.open() as first:
                    expected = shapes(first)

        call = self.calls.open(
            name,
            model.blob if model else None,
            body,
            targets=targets,
            settings={key: value for key, value in settings.items() if value is not None or key == "min"},
            judge=judge,
            on_result=took,
        )
        self.calls.wait(call)
        assert call.outcome is not None
        if call.outcome["missing"] and call.outcome["verdict"] != "fail":
            self.record(missing=call.outcome["missing"])
        return call.used()

    def send_and_wait(self, name: str, model: Model | None, site: str, **options: Any) -> Result | None:
        """The task for one site; None when it stayed lost for `grace`."""
        results = self.broadcast_and_wait(name, model, targets=[site], min_sites=0, **options)
        return results[0] if results else None

    def _fault(self, result: Result, expected: Any, tensors: bool) -> str | None:
        if result.meta.get("return_code"):
            return f"its executor answered {result.meta['return_code']}"
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
        return self.store.new_file(size)

    def keep(self, path: Path) -> Model:
        """Make a finished file a blob."""
        return self.store.keep(path)

    def initial_model(self) -> Model | None:
        """`workflow.model`: a safetensors file of the bundle, or a description; None: the sites begin with theirs."""
        return self.store.initial(self.settings.get("model"))
