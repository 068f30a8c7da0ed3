"""Models: mapped and written without loss, checked, averaged as a float64 reference does."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file

from fl_runtime.errors import JobSpecError, ProtocolError
from fl_runtime.models.average import average
from fl_runtime.models.blocks import BLOCK, Share
from fl_runtime.models.check import fault, shapes
from fl_runtime.models.tensors import TensorFile, dump, encode, narrow_bf16, widen_bf16, write
from fl_runtime.workflow.initial import make

DTYPES = [
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
]


def params(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {f"t-{name}": (rng.normal(size=(3, 5)) * 10).astype(name) for name in DTYPES}
    return {**made, "scalar": np.float32(2.5), "empty": np.zeros((0, 4), np.float32)}


def test_what_we_write_the_safetensors_library_reads(tmp_path: Path) -> None:
    plan, buffers = encode(params())
    write(tmp_path / "model", plan, buffers)
    got = load_file(tmp_path / "model")
    assert set(got) == set(params())
    for name, value in params().items():
        assert np.array_equal(got[name], value)
        assert got[name].dtype == value.dtype
    assert dump(plan, buffers) == (tmp_path / "model").read_bytes()


def test_what_the_safetensors_library_writes_we_read(tmp_path: Path) -> None:
    save_file({name: np.atleast_1d(value) for name, value in params().items()}, tmp_path / "model")
    with TensorFile(tmp_path / "model") as model:
        for name, value in params().items():
            assert np.array_equal(model.array(name), np.atleast_1d(value))


def test_a_map_is_writable_and_private(tmp_path: Path) -> None:
    plan, buffers = encode({"w": np.ones(10, np.float32)})
    write(tmp_path / "model", plan, buffers)
    before = (tmp_path / "model").read_bytes()
    array = TensorFile(tmp_path / "model").array("w")
    array += 1
    assert (array == 2).all()
    assert (tmp_path / "model").read_bytes() == before


@pytest.mark.slow
def test_torch_shares_the_map_also_in_bfloat16(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = {"w": torch.randn(4, 3), "b": torch.randn(7).to(torch.bfloat16), "n": torch.tensor(3)}
    plan, buffers = encode(values)
    write(tmp_path / "model", plan, buffers)
    model = TensorFile(tmp_path / "model")
    for name, value in values.items():
        got = model.torch(name)
        assert got.dtype is value.dtype
        assert torch.equal(got, value)
    model.torch("w").add_(1)
    assert np.array_equal(model.flat("b"), values["b"].float().numpy())
    assert np.array_equal(model.array("b").astype(np.float32), values["b"].float().numpy())


@pytest.mark.slow
def test_bfloat16_is_rounded_to_nearest_even_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    values = np.concatenate([np.random.default_rng(1).normal(size=5000), [0, -0.0, np.inf, -np.inf, 1e-40, 3.4e38]])
    want = torch.tensor(values.astype(np.float32)).to(torch.bfloat16).float().numpy()
    assert np.array_equal(widen_bf16(narrow_bf16(values.astype(np.float32))), want)
    assert np.isnan(widen_bf16(narrow_bf16(np.array([np.nan], np.float32)))).all()


def _header(header: object, data: bytes = b"") -> bytes:
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(body).to_bytes(8, "little") + body + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        (1 << 60).to_bytes(8, "little"),
        _header(b"not json"),
        _header([1, 2]),
        _header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"xxxx"),
        _header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        _header({"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"xxxx"),
        _header({"w": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, b"xxxx"),
        _header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"x" * 8),
        _header({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, b"x" * 8),
        _header(
            {
                "w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                "v": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]},
            },
            b"x" * 6,
        ),
        _header({"w": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, b"x"),
    ],
)
def test_a_file_that_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        TensorFile(content)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_bytes_do_more_than_be_refused(noise: bytes, at: int) -> None:
    good = bytearray(save({"w": np.arange(6, dtype=np.float32), "v": np.zeros(3)}))
    good[at % len(good) : at % len(good) + len(noise)] = noise
    for content in (noise, bytes(good)):
        try:
            model = TensorFile(content)
        except ProtocolError:
            continue
        for name in model.tensors:
            model.array(name)


def test_a_parameter_that_is_no_array_is_refused() -> None:
    for value in ("text", {"a": 1}, object(), [object()]):
        with pytest.raises(TypeError, match="parameter 'w'"):
            encode({"w": value})


# --- averaging


def shares(count: int, seed: int = 0) -> list[Share]:
    made = []
    for number in range(count):
        rng = np.random.default_rng(seed + number)
        tensors = {"w": rng.normal(size=(700, 900)).astype(np.float32), "h": rng.normal(size=33).astype(np.float16)}
        tensors["n"] = np.array([number, 10 * number], np.int64)
        tensors["d"] = rng.normal(size=4)
        made.append(Share(f"site-{number}", float(number + 1), TensorFile(save(tensors))))
    return made


def test_the_mean_is_the_float64_reference(tmp_path: Path) -> None:
    parts = shares(4)
    average(parts, tmp_path / "model")
    got = load_file(tmp_path / "model")
    total = sum(part.weight for part in parts)
    for name in ("w", "h", "d", "n"):
        want = np.zeros(got[name].shape)
        for part in parts:
            want += part.model.array(name).astype(np.float64) * (part.weight / total)
        want = np.rint(want) if name == "n" else want
        assert np.array_equal(got[name], want.astype(got[name].dtype)), name


def test_the_order_of_arrival_changes_no_bit(tmp_path: Path) -> None:
    parts, seen = shares(3), set()
    for number, order in enumerate(itertools.permutations(parts)):
        average(order, tmp_path / str(number))
        seen.add((tmp_path / str(number)).read_bytes())
    assert len(seen) == 1


def test_differences_are_added_to_their_base(tmp_path: Path) -> None:
    base = TensorFile(save({"w": np.full(3, 5, np.float32)}))
    results = [TensorFile(save({"w": np.full(3, value, np.float32)})) for value in (1, 2)]
    parts = [Share(site, 1.0, result, base) for site, result in zip("ab", results, strict=True)]
    average(parts, tmp_path / "model")
    assert load_file(tmp_path / "model")["w"].tolist() == [6.5, 6.5, 6.5]


def test_nothing_with_weight_can_not_be_averaged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="positive weight"):
        average([Share("a", 0.0, TensorFile(save({"w": np.zeros(1)})))], tmp_path / "model")


# --- checking


def test_a_sound_result_has_no_fault() -> None:
    model = TensorFile(save({"w": np.zeros(3, np.float32), "__optimizer__.m": np.full(2, np.nan)}))
    assert fault(model, {"w": ("F32", (3,))}) is None
    assert shapes(model) == {"w": ("F32", (3,))}
    assert fault(model, None) is None


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"w": np.array([1, np.inf, 3], np.float32)}, "NaN or infinity"),
        ({"w": np.zeros(4, np.float32)}, "shape"),
        ({"w": np.zeros(3)}, "F64, not F32"),
        ({"x": np.zeros(3, np.float32)}, "unknown tensor 'x'"),
        ({}, "no tensor"),
    ],
)
def test_each_fault_is_named(tensors: dict[str, np.ndarray], why: str) -> None:
    assert why in str(fault(TensorFile(save(tensors)), {"w": ("F32", (3,))}))


def test_a_missing_tensor_is_named() -> None:
    model = TensorFile(save({"w": np.zeros(3, np.float32)}))
    assert fault(model, {"w": ("F32", (3,)), "b": ("F32", (1,))}) == "it lacks the tensor 'b'"


# --- first models


def test_a_described_model_is_the_same_each_time(tmp_path: Path) -> None:
    wanted = {"tensors": {"w": [3, 2], "b": []}, "init": "normal", "seed": 7, "dtype": "float64"}
    make(wanted, tmp_path / "a")
    make(wanted, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert load_file(tmp_path / "a")["w"].shape == (3, 2)


@pytest.mark.parametrize(
    "wanted", [3, {}, {"tensors": {"w": "x"}}, {"tensors": {}, "init": "magic"}, {"tensors": {}, "x": 1}]
)
def test_a_description_that_is_none_is_refused(tmp_path: Path, wanted: object) -> None:
    with pytest.raises(JobSpecError):
        make(wanted, tmp_path / "a")


# --- robust aggregation


def spread(count: int) -> list[Share]:
    rng = np.random.default_rng(2)
    return [
        Share(f"s{number}", 1.0, TensorFile(save({"w": rng.normal(size=(3, 400_000)).astype(np.float32)})))
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_median_and_trimmed_mean_are_numpys(tmp_path: Path, count: int) -> None:
    from fl_runtime.models.robust import median, trimmed_mean

    parts = spread(count)
    stack = np.stack([part.model.array("w").astype(np.float64) for part in parts])
    median(parts, tmp_path / "median")
    assert np.array_equal(load_file(tmp_path / "median")["w"], np.median(stack, axis=0).astype(np.float32))
    trimmed_mean(parts, tmp_path / "trimmed", 0.2)
    cut = int(0.2 * count)
    want = np.sort(stack, axis=0)[cut : count - cut].mean(axis=0)
    assert np.allclose(load_file(tmp_path / "trimmed")["w"], want.astype(np.float32), rtol=1e-6, atol=1e-6)


def test_krum_takes_the_one_amid_the_others_and_not_the_outlier() -> None:
    from fl_runtime.models.robust import krum_choice

    rng = np.random.default_rng(0)
    values = [rng.normal(size=50) * 0.1 for _ in range(6)] + [np.full(50, 30.0)]
    parts = [Share(f"s{n}", 1.0, TensorFile(save({"w": value}))) for n, value in enumerate(values)]
    scores = []
    for one in values:
        gaps = sorted(float(((one - other) ** 2).sum()) for other in values if other is not one)
        scores.append(sum(gaps[: 7 - 1 - 2]))
    assert [share.site for share in krum_choice(parts, 1)] == [f"s{int(np.argmin(scores))}"]
    assert "s6" not in [share.site for share in krum_choice(parts, 1, keep=5)]
    with pytest.raises(ValueError, match="at least 4"):
        krum_choice(parts[:3], 1)


def test_bfloat16_parameters_come_back_as_they_were_and_may_be_changed_in_place(tmp_path: Path) -> None:
    kind = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    given = {"w": np.arange(6).reshape(2, 3).astype(kind), "scalar": np.array(1.5).astype(kind)}
    write(tmp_path / "model", *encode(given))
    found = TensorFile(tmp_path / "model")
    for name, value in given.items():
        back = found.array(name)
        assert (back.dtype, back.shape) == (kind, value.shape)
        assert np.array_equal(back, value)
        back[...] = 0  # a private map
    assert np.array_equal(TensorFile(tmp_path / "model").array("w"), given["w"])


def test_sums_shared_by_threads_have_the_bits_of_one_thread(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shares = []
    for site in range(3):
        path = tmp_path / f"{site}"
        write(path, *encode({"a": rng.normal(size=3 * BLOCK + 5).astype(np.float32), "b": rng.normal(size=7)}))
        shares.append(Share(f"site-{site}", site + 0.3, TensorFile(path)))
    average(shares, tmp_path / "many")
    total = sum(share.weight for share in shares)
    expected = sum(share.model.array("a").astype(np.float64) * (share.weight / total) for share in shares)
    assert np.array_equal(TensorFile(tmp_path / "many").array("a"), expected.astype(np.float32))
