"""ModelLearnable: weights and meta of a model that is learned."""

from __future__ import annotations

from typing import Any

from fl_runtime.apis.dxo import DXO, DataKind
from fl_runtime.app_common.abstract.learnable import Learnable


class ModelLearnableKey:
    WEIGHTS = "model_weights"
    OPTIMIZER = "optimizer"
    META = "meta"


class ModelLearnable(Learnable):
    def __init__(self) -> None:
        super().__init__()
        self[ModelLearnableKey.WEIGHTS] = {}
        self[ModelLearnableKey.META] = {}

    def is_empty(self) -> bool:
        return not self.get(ModelLearnableKey.WEIGHTS)


def make_model_learnable(weights: dict[str, Any], meta_props: dict[str, Any] | None = None) -> ModelLearnable:
    made = ModelLearnable()
    made[ModelLearnableKey.WEIGHTS] = weights
    made[ModelLearnableKey.META] = dict(meta_props or {})
    return made


def validate_model_learnable(model_learnable: Any) -> str:
    """What is wrong with it; empty when nothing is."""
    if not isinstance(model_learnable, ModelLearnable):
        return f"a ModelLearnable is wanted, not {type(model_learnable).__name__}"
    if ModelLearnableKey.WEIGHTS not in model_learnable:
        return "it lacks weights"
    return "" if ModelLearnableKey.META in model_learnable else "it lacks meta"


def model_learnable_to_dxo(ml: ModelLearnable) -> DXO:
    """Raises ValueError when it is no model."""
    if why := validate_model_learnable(ml):
        raise ValueError(why)
    return DXO(DataKind.WEIGHTS, ml[ModelLearnableKey.WEIGHTS], dict(ml[ModelLearnableKey.META]))
