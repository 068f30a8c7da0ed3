"""The means that a controller of one's own takes of models in memory, with BaseFedAvg and the aggregator."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fl_runtime.apis.dxo import DXO, DataKind, from_shareable
from fl_runtime.apis.fl_constant import ReservedKey
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.app_common.aggregators.intime_accumulate_model_aggregator import InTimeAccumulateWeightedAggregator
from fl_runtime.app_common.workflows.base_fedavg import BaseFedAvg
from fl_runtime.client.model import FLModel

Params = dict[str, Any]


def by_fedavg(models: list[Params], weights: list[float]) -> Params:
    pairs = zip(models, weights, strict=True)
    results = [FLModel("FULL", params, meta={"NUM_STEPS_CURRENT_ROUND": weight}) for params, weight in pairs]
    return BaseFedAvg.aggregate_fn(results).params or {}


def by_aggregator(models: list[Params], weights: list[float]) -> Params:
    aggregator = InTimeAccumulateWeightedAggregator(expected_data_kind=DataKind.WEIGHTS)
    for number, (params, weight) in enumerate(zip(models, weights, strict=True)):
        context = FLContext()
        context.set_peer_context(FLContext({ReservedKey.IDENTITY_NAME: f"site-{number}"}))
        result = DXO(DataKind.WEIGHTS, params, {"NUM_STEPS_CURRENT_ROUND": weight}).to_shareable()
        assert aggregator.accept(result, context)
    data: Params = from_shareable(aggregator.aggregate(FLContext())).data
    return data


both = pytest.mark.parametrize("mean", [by_fedavg, by_aggregator])


@both
def test_whole_numbers_are_rounded_and_flags_follow_the_majority(mean: Callable[..., Params]) -> None:
    same: Params = {"n": np.array([7, -7, 2]), "scalar": np.array(7), "u": np.array(7, np.uint8)}
    got = mean([{**same, "f": np.array([flag, True])} for flag in (True, False, False)], [1.0, 1.0, 1.0])
    for name, value in same.items():
        assert (got[name].dtype, got[name].tolist()) == (value.dtype, value.tolist())
    assert got["f"].tolist() == [False, True]


@both
def test_short_floats_keep_their_fractions_and_their_type(mean: Callable[..., Params]) -> None:
    for kind in (np.dtype(np.float16), np.dtype(pytest.importorskip("ml_dtypes").bfloat16)):
        got = mean([{"w": np.array([0.25, value]).astype(kind)} for value in (1.0, 2.0)], [1.0, 3.0])["w"]
        assert (got.dtype, got.tolist()) == (kind, [0.25, 1.75])


@pytest.mark.slow
@both
def test_torch_tensors_are_averaged_also_in_bfloat16(
    mean: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    kind = pytest.importorskip("ml_dtypes").bfloat16
    models = [
        {
            "w": torch.tensor([[0.25, value]], dtype=torch.bfloat16),
            "f": torch.full((2,), value, requires_grad=True),
            "n": torch.tensor(7),
        }
        for value in (1.0, 2.0, 2.0)
    ]
    got = mean(models, [2.0, 3.0, 3.0])
    assert (got["w"].dtype, got["w"].tolist()) == (kind, [[0.25, 1.75]])
    assert (got["f"].dtype, got["f"].tolist()) == (np.float32, [1.75, 1.75])
    assert (got["n"].shape, got["n"]) == ((), 7)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # numpy has no bfloat16 without it
    wide = mean(models, [2.0, 3.0, 3.0])["w"]
    assert (wide.dtype, wide.tolist()) == (np.float32, [[0.25, 1.75]])
