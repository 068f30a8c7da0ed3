"""Federated averaging and its relatives: every site trains from the global model; what they send makes the next one.

Settings of all of them: rounds, model, min_sites, deadline, grace;
`final_evaluation: true` (a last task `validate`);
`sample: 0.5` or `sample: 10` (how many of the sites train in a round, drawn anew each time);
`best: accuracy` or `best: {metric: loss, mode: min}` (the model with the best validation metric is kept as well);
`early_stop: {metric: accuracy, patience: 5, mode: max, min_delta: 0}`;
`aggregate_at: server | SITE | rotate` (which node computes the next model; the bits are the same);
`aggregator: mean | median | {type: trimmed_mean, trim: 0.2} | {type: krum, byzantine: 1, keep: 1}`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fl_runtime.workflow.aggregation import states_of
from fl_runtime.workflow.base import Model, Result, Workflow
from fl_runtime.workflow.nodes import aggregated
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

    def plan(self) -> dict[str, Any]:
        """How results become the next model; see workflow/aggregation.py."""
        wanted = self.settings.get("aggregator", "mean")
        return {"type": wanted} if isinstance(wanted, str) else {"type": "mean", **wanted}

    def aggregate(self, results: Sequence[Result]) -> Model:
        """The next global model."""
        plan = self.plan()
        states = {key: self.tensors[key] for key in states_of(plan) if key in self.tensors}
        made = aggregated(self, plan, results, states)
        self.tensors.update({key: model for key, model in made.items() if key != "model"})
        return made["model"]

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

    def plan(self) -> dict[str, Any]:
        options = dict(self.settings.get("optimizer") or {})
        return {"type": "optimizer", "optimizer": str(options.pop("type", self.default)), "options": options}


class FedAvgM(FedOpt):
    """Server momentum: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution", 2019."""

    default = "sgd"
