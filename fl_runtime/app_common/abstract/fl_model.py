"""FLModel, under FLARE's second name for its module."""

from fl_runtime.client.model import FLModel, MetaKey, ParamsType

FLModelConst = MetaKey
__all__ = ["FLModel", "FLModelConst", "MetaKey", "ParamsType"]
