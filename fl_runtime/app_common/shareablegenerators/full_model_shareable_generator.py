"""The whole model travels to the sites; weights or differences come back."""

from __future__ import annotations

from fl_runtime.apis.dxo import DataKind, from_shareable
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.shareable import Shareable
from fl_runtime.app_common.abstract.learnable import Learnable
from fl_runtime.app_common.abstract.model import (
    ModelLearnable,
    ModelLearnableKey,
    make_model_learnable,
    model_learnable_to_dxo,
)
from fl_runtime.app_common.abstract.shareable_generator import ShareableGenerator
from fl_runtime.app_common.app_constant import AppConstants


class FullModelShareableGenerator(ShareableGenerator):
    def learnable_to_shareable(self, learnable: Learnable, fl_ctx: FLContext) -> Shareable:
        if not isinstance(learnable, ModelLearnable):
            raise TypeError(f"a ModelLearnable is wanted, not {type(learnable).__name__}")
        return model_learnable_to_dxo(learnable).to_shareable()

    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> Learnable:
        """A difference is added to `fl_ctx`'s AppConstants.GLOBAL_MODEL."""
        dxo = from_shareable(shareable)
        weights = dxo.data
        if dxo.data_kind == DataKind.WEIGHT_DIFF:
            base = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
            if not isinstance(base, ModelLearnable):
                raise ValueError("a difference came, but the context holds no global model")
            known = base[ModelLearnableKey.WEIGHTS]
            weights = {**known, **{name: known[name] + gap for name, gap in dxo.data.items()}}
        elif dxo.data_kind != DataKind.WEIGHTS:
            raise ValueError(f"weights are wanted, not {dxo.data_kind}")
        return make_model_learnable(weights, dict(dxo.meta))
