"""BaseFedAvg: the parts of federated averaging for own variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fl_runtime.apis.dxo import MetaKey
from fl_runtime.app_common.workflows.model_controller import ModelController
from fl_runtime.client.model import FLModel, ParamsType
from fl_runtime.models.average import mean_of


class BaseFedAvg(ModelController):
    """
    Args:
        num_clients: how many sites train in a round.
        num_rounds, start_round: rounds count from `start_round`.
    """

    def __init__(self, *args: Any, num_clients: int = 3, num_rounds: int = 5, start_round: int = 0, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.num_clients, self.num_rounds, self.start_round = num_clients, num_rounds, start_round

    def aggregate(
        self, results: list[FLModel], aggregate_fn: Callable[[list[FLModel]], FLModel] | None = None
    ) -> FLModel:
        """Combine the results (by default `aggregate_fn` of this class: the weighted mean); says who took part."""
        made = (aggregate_fn or self.aggregate_fn)(results)
        made.meta["nr_aggregated"] = len(results)
        made.meta["current_round"] = self.current_round
        return made

    @staticmethod
    def aggregate_fn(results: list[FLModel]) -> FLModel:
        """The mean in float64, weighted by NUM_STEPS_CURRENT_ROUND, summed in the order of the list; metrics, too.

        Raises:
            ValueError: there are no results, or some are weights and others differences.
        """
        if not results or len({result.params_type for result in results}) != 1:
            raise ValueError("there must be results, all weights or all differences")
        weights = [float(result.meta.get(MetaKey.NUM_STEPS_CURRENT_ROUND, 1.0)) for result in results]
        total = sum(weights)
        params = {
            name: mean_of([(result.params or {})[name] for result in results], weights)
            for name in results[0].params or {}
        }
        metrics: dict[str, float] | None = None
        if all(result.metrics for result in results):
            metrics = {
                key: sum(w * (result.metrics or {}).get(key, 0.0) for w, result in zip(weights, results, strict=True))
                / total
                for key in results[0].metrics or {}
            }
        return FLModel(results[0].params_type, params=params, metrics=metrics)

    def update_model(self, model: FLModel, model_update: FLModel, replace_meta: bool = True) -> FLModel:
        """The model with the aggregate's weights, or with its differences added."""
        update = model_update.params or {}
        if model_update.params_type is ParamsType.DIFF:
            known = model.params or {}
            update = {name: (known[name] + change).astype(known[name].dtype) for name, change in update.items()}
        model.params = {**(model.params or {}), **update}
        model.metrics = model_update.metrics
        model.meta = dict(model_update.meta) if replace_meta else {**model.meta, **model_update.meta}
        return model
