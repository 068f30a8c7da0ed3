"""Federated averaging and its relatives: every site trains from the global model; what they send makes the next one.

Settings of all of them: rounds, model, min_sites, deadline, grace;
`final_evaluation: true` (a last task `validate`);
`sample: 0.5` or `sample: 10` (how many of the sites train in a round, drawn anew each time);
`best: accuracy` or `best: {metric: loss, mode: min}` (the model with the best validation metric is kept as well);
`early_stop: {metric: accuracy, patience: 5, mode: max, min_delta: 0}`;
`aggregator: mean | median | {type: trimmed_mean, trim: 0.2} | {type: krum, byzantine: 1, keep: 1}`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fl_runtime.errors import FlError, JobSpecError
from fl_runtime.models import robust
from fl_runtime.models.average import average
from fl_runtime.models.blocks import Share
from fl_runtime.models.optimizers import OPTIMIZERS, apply
from fl_runtime.workflow.base import Model, Result, Workflow
from fl_runtime.workflow.selection import is_better, metric_and_mode

log = logging.getLogger("fedspan.workflow")


class FedAvg(Workflow):
    """McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017."""

    means: Mapping[str, float] = {}

    def run(self) -> None:
        if self.model is None:
            self.model = self.initial_model()
        if not self.state.get("trained"):
            for number in self.rounds(int(self.settings.get("rounds", 1))):
                results = self.train()
                self._note(results)
                self._select()
                self.model = self.aggregate(results)
                log.info("round %d: %s", number, ", ".join(result.site for result in results))
        if self.settings.get("final_evaluation") and not self.state.get("evaluated"):
            for _ in self.rounds(self.finished + 1):
                self._note(self.broadcast_and_wait("validate", self.model, tensors=False))
                self._select()
                self.state["evaluated"] = True

    def train(self) -> list[Result]:
        """One round's tasks."""
        return self.broadcast_and_wait("train", self.model, targets=self.sample(), meta=self.task_meta())

    def task_meta(self) -> Mapping[str, Any]:
        """What the sites are told beside the model."""
        return {}

    def sample(self) -> list[str] | None:
        """Who trains this round; None = all."""
        wanted = self.settings.get("sample")
        if wanted is None:
            return None
        sites = sorted(self.sites())
        count = max(1, round(wanted * len(sites))) if isinstance(wanted, float) and wanted <= 1 else int(wanted)
        return sorted(self.rng.choice(sites, min(count, len(sites)), replace=False).tolist())

    # --- the next model

    def shares(self, results: Sequence[Result]) -> list[Share]:
        """The results with their weights; differences know their base."""
        kinds = {result.is_diff for result in results}
        if len(kinds) != 1:
            raise FlError("Some sites sent weights and others differences: they can't be combined")
        base = None
        if kinds == {True}:
            if self.model is None:
                raise FlError("The sites sent differences, but there was no model that they could differ from")
            base = self.model.open()
        return [Share(result.site, result.weight, result.open(), base) for result in results]

    def aggregate(self, results: Sequence[Result]) -> Model:
        """The next global model."""
        shares = self.shares(results)
        path = self.new_file(results[0].size)
        wanted = self.settings.get("aggregator", "mean")
        options = {"type": wanted} if isinstance(wanted, str) else dict(wanted)
        kind = str(options.pop("type", "mean"))
        try:
            if kind == "mean":
                average(shares, path)
            elif kind == "median":
                robust.median(shares, path)
            elif kind == "trimmed_mean":
                robust.trimmed_mean(shares, path, float(options.get("trim", 0.1)))
            elif kind == "krum":
                chosen = robust.krum_choice(shares, int(options.get("byzantine", 1)), int(options.get("keep", 1)))
                self.record(chosen=[share.site for share in chosen])
                average([Share(share.site, 1.0, share.model, share.base) for share in chosen], path)
            else:
                raise JobSpecError(f"There is no aggregator {kind!r}", why="mean, median, trimmed_mean, krum")
        except ValueError as error:
            raise FlError("The results can't be combined", why=str(error)) from None
        return self.keep(path)

    # --- metrics

    def _note(self, results: Sequence[Result]) -> None:
        """Per-site and weighted mean metrics: of the model that was sent, before training."""
        keys = sorted({key for result in results for key in result.metrics})
        means = {}
        for key in keys:
            having = [result for result in results if key in result.metrics]
            weight = sum(result.weight for result in having)
            if weight > 0:
                means[key] = sum(result.metrics[key] * result.weight for result in having) / weight
        self.means = means
        self.record(
            metrics=means,
            sites={result.site: {"weight": result.weight, **result.metrics} for result in results},
            weight=sum(result.weight for result in results),
        )

    def _select(self) -> None:
        """Keep the best model so far; stop when nothing gets better. The metrics are of `self.model` as it was sent."""
        best = self.settings.get("best")
        if best is not None and self.model is not None:
            metric, mode = metric_and_mode(best)
            value, known = self.means.get(metric), self.state.get("best")
            if value is not None and is_better(value, known["value"] if known else None, mode):
                self.state["best"] = {"metric": metric, "value": value, "round": self.round}
                self.tensors["best"] = self.model
        stop = self.settings.get("early_stop")
        if stop is not None:
            metric, mode = metric_and_mode(stop)
            value, seen = self.means.get(metric), self.state.setdefault("stall", {"value": None, "rounds": 0})
            if value is not None and is_better(value, seen["value"], mode, float(stop.get("min_delta", 0.0))):
                self.state["stall"] = {"value": value, "rounds": 0}
            else:
                seen["rounds"] += 1
                if seen["rounds"] >= int(stop.get("patience", 5)) and not self.state.get("trained"):
                    log.info("no better %s for %d rounds: training ends", metric, seen["rounds"])
                    self.state["trained"] = True
                    self.stop()


class FedProx(FedAvg):
    """FedAvg whose sites add mu/2 * |w - w_global|^2 to their loss; they find mu in `model.meta["FEDPROX_MU"]`.

    Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020. Setting: `mu` (0.01).
    """

    def task_meta(self) -> Mapping[str, Any]:
        return {"FEDPROX_MU": float(self.settings.get("mu", 0.01))}


class FedOpt(FedAvg):
    """An optimizer on the server takes the mean's difference as a gradient.

    Setting: `optimizer: {type: adam | yogi | adagrad | sgd, lr: ..., ...}` (see models/optimizers.py).
    """

    default = "adam"

    def aggregate(self, results: Sequence[Result]) -> Model:
        options = dict(self.settings.get("optimizer") or {})
        kind = str(options.pop("type", self.default))
        if kind not in OPTIMIZERS:
            raise JobSpecError(f"There is no server optimizer {kind!r}", why=f"there are: {', '.join(OPTIMIZERS)}")
        try:
            optimizer = OPTIMIZERS[kind](**{key: float(value) for key, value in options.items()})
        except (TypeError, ValueError) as error:
            raise JobSpecError(f"workflow.optimizer: {error}") from None
        if self.model is None:
            return super().aggregate(results)  # the first mean is the first model
        size = results[0].size
        path, states = self.new_file(size), {key: self.new_file(size) for key in optimizer.states}
        known = {key: self.tensors[key].open() for key in optimizer.states if key in self.tensors}
        apply(optimizer, self.shares(results), self.model.open(), known, path, states)
        for key, state in states.items():
            self.tensors[key] = self.keep(state)
        return self.keep(path)


class FedAvgM(FedOpt):
    """Server momentum: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution", 2019."""

    default = "sgd"
