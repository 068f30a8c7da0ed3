"""Workflows in which the model goes from site to site, or models are looked at everywhere."""

from __future__ import annotations

import logging

from fl_runtime.models.average import average
from fl_runtime.models.blocks import Share
from fl_runtime.workflow.base import Model, Result
from fl_runtime.workflow.fedavg import FedAvg

log = logging.getLogger("fedspan.workflow")


class Cyclic(FedAvg):
    """Each round the model visits every site in turn; a site that stays lost for `grace` is passed over.

    Chang et al., "Distributed deep learning networks among institutions for medical imaging", JAMIA 2018. Setting:
    `order: fixed` (by name, default) or `random` (drawn for each round).
    """

    def train(self) -> list[Result]:
        order = sorted(self.sites())
        if self.settings.get("order") == "random":
            order = self.rng.permutation(order).tolist()
        visited = []
        for site in order:
            for result in self.broadcast_and_wait("train", self.model, targets=[site], min_sites=0):
                visited.append(result)
                self.model = self._as_model(result)
        self.record(order=[result.site for result in visited])
        return visited

    def _select(self) -> None:
        """The metrics are of the models on their way, not of one: there is no best one."""

    def aggregate(self, results: list[Result]) -> Model:  # type: ignore[override]  # the last one has it
        assert self.model is not None
        return self.model

    def _as_model(self, result: Result) -> Model:
        path = self.new_file(result.size)
        base = self.model.open() if result.is_diff and self.model is not None else None
        average([Share(result.site, 1.0, result.open(), base)], path)
        return self.keep(path)


class Evaluate(FedAvg):
    """The given model's metrics on every site's data; nothing is trained."""

    def run(self) -> None:
        if self.model is None:
            self.model = self.initial_model()
        for _ in self.rounds(1):
            self._note(self.broadcast_and_wait("validate", self.model, tensors=False))


class CrossSite(FedAvg):
    """After FedAvg rounds (`rounds`, may be 0), every site's own model is evaluated on every site's data.

    A site gives its model at the task `submit_model` and answers `validate` with metrics. The history's last entry has
    `cross_site`: model's owner -> site -> metrics; the owner of the global model is `server`.
    """

    def run(self) -> None:
        super().run()
        for _ in self.rounds(self.finished + 1) if not self.state.get("crossed") else ():
            models: dict[str, Model] = {"server": self.model} if self.model is not None else {}
            for result in self.broadcast_and_wait("submit_model", self.model):
                models[result.site] = self._own(result)
            table: dict[str, dict[str, dict[str, float]]] = {}
            for owner, model in models.items():
                answers = self.broadcast_and_wait("validate", model, tensors=False, meta={"model_owner": owner})
                table[owner] = {answer.site: answer.metrics for answer in answers}
            self.record(cross_site=table)
            self.state["crossed"] = True

    def _own(self, result: Result) -> Model:
        path = self.new_file(result.size)
        base = self.model.open() if result.is_diff and self.model is not None else None
        average([Share(result.site, 1.0, result.open(), base)], path)
        return self.keep(path)
