"""Federated averaging: every site trains from the global model; the weighted mean of the results is the next one.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fl_runtime.errors import FlError
from fl_runtime.models.average import Share, average
from fl_runtime.workflow.base import Model, Result, Workflow

log = logging.getLogger("fedspan.workflow")


class FedAvg(Workflow):
    """Settings: rounds, model, min_sites, deadline, grace, final_evaluation (a last task `validate`)."""

    def run(self) -> None:
        if self.model is None:
            self.model = self.initial_model()
        rounds = int(self.settings.get("rounds", 1))
        final = bool(self.settings.get("final_evaluation", False))
        for number in self.rounds(rounds + final):
            if number == rounds:
                self._evaluate()
                continue
            results = self.broadcast_and_wait("train", self.model)
            self.model = self.aggregate(results)
            self._note(results)
            log.info("round %d: %s", number, ", ".join(result.site for result in results))

    def aggregate(self, results: Sequence[Result]) -> Model:
        """The next model."""
        kinds = {result.is_diff for result in results}
        if len(kinds) != 1:
            raise FlError("Some sites sent weights and others differences: they can't be averaged together")
        if kinds == {True} and self.model is None:
            raise FlError("The sites sent differences, but there was no model that they could differ from")
        path = self.new_file(results[0].size)
        base = self.model.open() if kinds == {True} and self.model is not None else None
        average([Share(result.site, result.weight, result.open()) for result in results], path, base)
        return self.keep(path)

    def _evaluate(self) -> None:
        self._note(self.broadcast_and_wait("validate", self.model, tensors=False))

    def _note(self, results: Sequence[Result]) -> None:
        """Per-site and weighted mean metrics: of the model that was sent, before training."""
        total = sum(result.weight for result in results)
        keys = sorted({key for result in results for key in result.metrics})
        means = {}
        for key in keys:
            having = [result for result in results if key in result.metrics]
            weight = sum(result.weight for result in having)
            if weight > 0:
                means[key] = sum(result.metrics[key] * result.weight for result in having) / weight
        self.record(
            metrics=means,
            sites={result.site: {"weight": result.weight, **result.metrics} for result in results},
            weight=total,
        )
