"""The weighted mean of weights or differences."""

from __future__ import annotations

from typing import Any

from fl_runtime.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.shareable import Shareable
from fl_runtime.app_common.abstract.aggregator import Aggregator
from fl_runtime.models.average import mean_of


class InTimeAccumulateWeightedAggregator(Aggregator):
    """Sums in float64 in site-name order when it is asked, so that the order of arrival changes no bit.

    Args:
        exclude_vars: names (exact) that are left out.
        aggregation_weights: site -> factor beside its steps; 1 when absent.
        expected_data_kind: WEIGHTS or WEIGHT_DIFF; other results do not count.
        weigh_by_local_iter: by NUM_STEPS_CURRENT_ROUND, else all the same.
    """

    def __init__(
        self,
        exclude_vars: Any = None,
        aggregation_weights: dict[str, float] | None = None,
        expected_data_kind: str = DataKind.WEIGHT_DIFF,
        weigh_by_local_iter: bool = True,
    ) -> None:
        super().__init__()
        self.exclude_vars = set([exclude_vars] if isinstance(exclude_vars, str) else exclude_vars or ())
        self.aggregation_weights = aggregation_weights or {}
        self.expected_data_kind = expected_data_kind
        self.weigh_by_local_iter = weigh_by_local_iter
        self._taken: dict[str, tuple[float, dict[str, Any]]] = {}

    def reset(self, fl_ctx: FLContext) -> None:
        self._taken.clear()

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        peer = fl_ctx.get_peer_context()
        site = str(peer.get_identity_name("?")) if peer is not None else f"? {len(self._taken)}"
        try:
            dxo = from_shareable(shareable)
        except ValueError as error:
            self.log_error(fl_ctx, f"the result of {site} does not count: {error}")
            return False
        if dxo.data_kind != self.expected_data_kind or site in self._taken:
            self.log_error(fl_ctx, f"the result of {site} does not count: {dxo.data_kind}")
            return False
        steps = float(dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) or 1) if self.weigh_by_local_iter else 1.0
        self._taken[site] = (steps * float(self.aggregation_weights.get(site, 1.0)), dxo.data)
        return True

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """A DXO of the expected kind. Raises ValueError when there is nothing to average."""
        total = sum(weight for weight, _ in self._taken.values())
        if not total > 0:
            raise ValueError("nothing to average: no result with a positive weight")
        parts = [self._taken[site] for site in sorted(self._taken)]
        weights = [weight for weight, _ in parts]
        means = {
            name: mean_of([data[name] for _, data in parts], weights)
            for name in parts[0][1]
            if name not in self.exclude_vars
        }
        self._taken.clear()
        return DXO(self.expected_data_kind, means).to_shareable()


class AccumulateWeightedAggregator(InTimeAccumulateWeightedAggregator):
    """FLARE's older name."""
