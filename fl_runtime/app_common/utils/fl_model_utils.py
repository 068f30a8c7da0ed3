"""Between Shareables and FLModels, for executors and controllers that prefer the latter."""

from __future__ import annotations

from typing import Any

from fl_runtime.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.shareable import Shareable
from fl_runtime.app_common.app_constant import AppConstants
from fl_runtime.client.model import FLModel, ParamsType

_KINDS = {ParamsType.FULL: DataKind.WEIGHTS, ParamsType.DIFF: DataKind.WEIGHT_DIFF}


class FLModelUtils:
    @staticmethod
    def to_shareable(fl_model: FLModel) -> Shareable:
        """As a DXO of weights, differences or metrics, with the rounds as headers."""
        made = FLModelUtils.to_dxo(fl_model).to_shareable()
        if fl_model.current_round is not None:
            made.set_header(AppConstants.CURRENT_ROUND, fl_model.current_round)
        if fl_model.total_rounds is not None:
            made.set_header(AppConstants.NUM_ROUNDS, fl_model.total_rounds)
        return made

    @staticmethod
    def from_shareable(shareable: Shareable, fl_ctx: FLContext | None = None) -> FLModel:
        """Raises ValueError when it holds no DXO of weights, differences or metrics."""
        made = FLModelUtils.from_dxo(from_shareable(shareable))
        made.current_round = shareable.get_header(AppConstants.CURRENT_ROUND)
        made.total_rounds = shareable.get_header(AppConstants.NUM_ROUNDS)
        return made

    @staticmethod
    def to_dxo(fl_model: FLModel) -> DXO:
        meta: dict[str, Any] = dict(fl_model.meta)
        if fl_model.params_type is None:
            return DXO(DataKind.METRICS, dict(fl_model.metrics or {}), meta)
        if fl_model.metrics is not None:
            meta[MetaKey.INITIAL_METRICS] = dict(fl_model.metrics)
        return DXO(_KINDS[fl_model.params_type], dict(fl_model.params or {}), meta)

    @staticmethod
    def from_dxo(dxo: DXO) -> FLModel:
        """Raises ValueError for other kinds than weights, differences and metrics."""
        meta = dict(dxo.meta)
        if dxo.data_kind == DataKind.METRICS:
            return FLModel(metrics=dxo.data, meta=meta)
        for params_type, kind in _KINDS.items():
            if dxo.data_kind == kind:
                metrics = meta.pop(MetaKey.INITIAL_METRICS, None)
                return FLModel(params_type, params=dxo.data, metrics=metrics, meta=meta)
        raise ValueError(f"a DXO of {dxo.data_kind} is no model")
