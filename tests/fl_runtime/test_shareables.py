"""Shareables and DXOs travel as safetensors and JSON: what goes in comes out, and nothing is pickled."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_runtime.apis.dxo import DXO, DataKind, MetaKey, from_bytes, from_file, from_shareable, get_leaf_dxos
from fl_runtime.apis.dxo_filter import DXOFilter
from fl_runtime.apis.fl_constant import FLContextKey
from fl_runtime.apis.fl_context import FLContext, FLContextManager
from fl_runtime.apis.shareable import ReturnCode, Shareable, make_reply
from fl_runtime.apis.signal import Signal
from fl_runtime.apis.wire import decode, encode
from fl_runtime.app_common.utils.fl_model_utils import FLModelUtils
from fl_runtime.client.model import FLModel, ParamsType, from_wire, store, to_wire
from fl_runtime.errors import ProtocolError
from fl_runtime.models.tensors import encode as encode_tensors


def travel(shareable: Shareable) -> Shareable:
    import json

    meta, tensors = encode(shareable)
    inline, _ = store(encode_tensors(tensors) if tensors else None, lambda _: Path())
    return decode(json.loads(json.dumps(meta)), inline or None)


def test_all_plain_data_and_arrays_travel() -> None:
    sent = Shareable(
        {"a": 1, "b": [1.5, "x", None, True], "t": (1, (2,)), "s": {3, 1}, "n": {7: "seven"}, "raw": b"\0"}
    )
    sent["deep"] = {"w": [np.arange(6).reshape(2, 3), {"v": np.float32(2.5)}], "inner": make_reply(ReturnCode.OK)}
    sent.set_header("current_round", 4)
    sent.add_cookie("mine", 12)
    got = travel(sent)
    for key in ("a", "b", "t", "s", "n", "raw"):
        assert got[key] == sent[key], key
    assert np.array_equal(got["deep"]["w"][0], np.arange(6).reshape(2, 3))
    assert got["deep"]["w"][1] == {"v": 2.5}
    assert isinstance(got["deep"]["inner"], Shareable)
    assert (got.get_header("current_round"), got.get_cookie("mine"), got.get_return_code()) == (4, 12, ReturnCode.OK)


def test_what_is_neither_plain_nor_an_array_is_told_by_its_place() -> None:
    with pytest.raises(TypeError, match=r"deep\.f is object; only arrays"):
        encode(Shareable({"deep": {"f": object()}}))


def test_dxos_travel_alone_in_collections_and_as_files(tmp_path: Path) -> None:
    weights = DXO(DataKind.WEIGHTS, {"w": np.ones(3, np.float32)}, {MetaKey.NUM_STEPS_CURRENT_ROUND: 7})
    both = DXO(DataKind.COLLECTION, {"model": weights, "metrics": DXO(DataKind.METRICS, {"acc": 0.5})})
    got = from_shareable(travel(both.to_shareable()))
    leaves, wrong = get_leaf_dxos(got)
    assert (sorted(leaves), wrong, got.validate()) == (["metrics", "model"], [], "")
    assert leaves["model"].get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 7
    assert np.array_equal(leaves["model"].data["w"], np.ones(3))
    weights.to_file(tmp_path / "w")
    for read in (from_bytes(weights.to_bytes()), from_file(tmp_path / "w")):
        assert read.data_kind == DataKind.WEIGHTS
        assert read.data["w"].dtype == np.float32
    with pytest.raises(ValueError, match="holds no DXO"):
        from_shareable(make_reply(ReturnCode.ERROR))
    with pytest.raises(ProtocolError):
        from_bytes(b"cposix\nsystem\n")


def test_a_dxo_of_weights_is_a_model_for_the_client_api_and_the_other_way_round() -> None:
    dxo = DXO(DataKind.WEIGHT_DIFF, {"w": np.ones(2)}, {"NUM_STEPS_CURRENT_ROUND": 9, "initial_metrics": {"acc": 0.25}})
    sent = dxo.to_shareable()
    sent.set_header("current_round", 3)
    meta, tensors = encode(sent)
    inline, _ = store(encode_tensors(tensors), lambda _: Path())
    model = from_wire(meta, inline, "numpy")
    assert model.params is not None
    assert list(model.params) == ["w"]
    assert (model.params_type, model.current_round, model.metrics) == ("DIFF", 3, {"acc": 0.25})
    assert model.meta["NUM_STEPS_CURRENT_ROUND"] == 9
    meta, plan = to_wire(model)
    back = decode(meta, store(plan, lambda _: Path())[0])
    got = from_shareable(back)
    assert (got.data_kind, got.meta["initial_metrics"]) == (DataKind.WEIGHT_DIFF, {"acc": 0.25})
    assert back.get_header("current_round") == 3


def test_models_become_shareables_and_back() -> None:
    sent = FLModel("DIFF", {"w": np.ones(2)}, metrics={"acc": 0.5}, current_round=2, total_rounds=5, meta={"k": 1})
    dxo = from_shareable(FLModelUtils.to_shareable(sent))
    assert (dxo.data_kind, dxo.meta) == (DataKind.WEIGHT_DIFF, {"k": 1, MetaKey.INITIAL_METRICS: {"acc": 0.5}})
    got = FLModelUtils.from_shareable(travel(FLModelUtils.to_shareable(sent)))
    assert (got.params_type, got.metrics, got.meta) == (ParamsType.DIFF, {"acc": 0.5}, {"k": 1})
    assert (got.current_round, got.total_rounds) == (2, 5)
    only = FLModelUtils.from_shareable(FLModelUtils.to_shareable(FLModel(metrics={"acc": 0.25})))
    assert (only.params_type, only.metrics) == (None, {"acc": 0.25})
    with pytest.raises(ValueError, match="ANALYTIC is no model"):
        FLModelUtils.from_dxo(DXO(DataKind.ANALYTIC, {}))


def test_big_arrays_are_maps_of_the_file_that_may_be_written_to_privately(tmp_path: Path) -> None:
    meta, tensors = encode(DXO(DataKind.WEIGHTS, {"w": np.zeros(100_000, np.float32)}).to_shareable())
    _, file = store(encode_tensors(tensors), lambda _: tmp_path / "blob")
    assert file is not None
    got = from_shareable(decode(meta, file)).data["w"]
    assert not got.flags.owndata
    got += 1
    assert from_shareable(decode(meta, file)).data["w"].sum() == 0


def test_where_there_is_no_torch_its_tensors_come_as_numpy_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller on a server without torch, asked by scripts and executors that use it."""
    monkeypatch.setitem(sys.modules, "torch", None)
    params = {"w": np.ones(3, np.float32), "n": np.array(4)}
    meta, tensors = encode(DXO(DataKind.WEIGHTS, params).to_shareable())
    from_script, plan = to_wire(FLModel("FULL", params))
    for about, lay in ((meta, encode_tensors(tensors)), (from_script, plan)):
        got = from_shareable(decode({**about, "framework": "torch"}, store(lay, lambda _: Path())[0])).data
        assert all(np.array_equal(got[name], value) for name, value in params.items())
        assert all(isinstance(value, np.ndarray) for value in got.values())


@pytest.mark.slow
def test_torch_tensors_come_back_as_torch() -> None:
    torch = pytest.importorskip("torch")
    sent = DXO(DataKind.WEIGHTS, {"w": torch.ones(3, dtype=torch.bfloat16)}).to_shareable()
    got = from_shareable(travel(sent)).data["w"]
    assert got.dtype is torch.bfloat16
    assert torch.equal(got, torch.ones(3, dtype=torch.bfloat16))


class Clip(DXOFilter):
    def __init__(self) -> None:
        super().__init__([DataKind.WEIGHTS, DataKind.WEIGHT_DIFF], [DataKind.WEIGHT_DIFF])

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        dxo.data = {name: np.clip(value, -1, 1) for name, value in dxo.data.items()}
        return dxo


def test_a_dxo_filter_sees_its_kinds_only_also_in_collections() -> None:
    def big(kind: str) -> DXO:
        return DXO(kind, {"w": np.full(2, 5.0)})

    both = DXO(DataKind.COLLECTION, {"full": big(DataKind.WEIGHTS), "diff": big(DataKind.WEIGHT_DIFF)})
    got = from_shareable(Clip().process(both.to_shareable(), FLContext()))
    assert got.data["full"].data["w"].max() == 5
    assert got.data["diff"].data["w"].max() == 1
    assert got.data["diff"].get_filter_history() == ["Clip"]
    reply = make_reply(ReturnCode.ERROR)
    assert Clip().process(reply, FLContext()) is reply


def test_contexts_share_what_is_sticky() -> None:
    manager = FLContextManager(engine="engine", identity="site-1", job_id="j")
    one, other = manager.new_context(), manager.new_context()
    one.set_prop("a", 1, private=False, sticky=True)
    one.set_prop("b", 2, sticky=False)
    assert (other.get_prop("a"), other.get_prop("b", "none"), one.get_prop("b")) == (1, "none", 2)
    assert (one.get_engine(), one.get_job_id(), one.get_identity_name()) == ("engine", "j", "site-1")
    public: dict[str, Any] = one.get_all_public_props()
    assert public["a"] == 1
    assert "b" not in public
    assert other.get_prop(FLContextKey.CLIENT_NAME) == "site-1"


def test_a_signal_is_triggered_by_its_parent_too() -> None:
    parent = Signal()
    child = Signal(parent)
    assert not child.triggered
    parent.trigger("stop")
    assert child.triggered
