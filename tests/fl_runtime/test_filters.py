"""Each filter against a reference in float64; noise by its distribution; and what two passes and laziness mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fl_runtime.errors import JobSpecError
from fl_runtime.filters import views
from fl_runtime.filters.base import FilterError, Work
from fl_runtime.filters.chain import apply, run
from fl_runtime.filters.noise import gaussian_epsilon
from fl_runtime.filters.order import kth, percentile
from fl_runtime.filters.registry import parse_filters
from fl_runtime.models.average import average
from fl_runtime.models.blocks import BLOCK, Share
from fl_runtime.models.tensors import TensorFile, dump, encode

RNG = np.random.default_rng(7)
KEY = bytes(range(16))


def model(**arrays: np.ndarray) -> TensorFile:
    return TensorFile(dump(*encode(arrays)))


def sample() -> dict[str, np.ndarray]:
    return {
        "w": RNG.normal(size=(40, 30)).astype(np.float32),
        "b": RNG.normal(size=7),
        "h": RNG.normal(size=(5, 5)).astype(np.float16),
        "n": np.arange(3),
    }


def received() -> dict[str, np.ndarray]:
    return {name: (value * 0 + 1).astype(value.dtype) for name, value in sample().items()}


def outcome(filters, arrays, base=None, meta=None, tmp=Path("/nowhere"), releases=1) -> tuple[dict, dict]:
    work = Work(
        {"params_type": "FULL", "meta": {}, **(meta or {})},
        base=model(**base) if base else None,
        key=KEY,
        scratch=tmp,
        releases=releases,
    )
    target = tmp / "out"
    entries = parse_filters({"results": filters}, "test")["results"]
    with TensorFile(dump(*encode(arrays))) as file:
        view = apply(entries, file, work)
        views.write(view, target)
    written = TensorFile(target)
    return {name: written.array(name) for name in written.tensors}, work.meta


def flat(arrays) -> np.ndarray:
    return np.concatenate([arrays[n].astype(np.float64).ravel() for n in sorted(arrays) if arrays[n].dtype.kind == "f"])


def test_clip_norm_scales_the_whole_update_once(tmp_path: Path) -> None:
    arrays, base = sample(), received()
    update = flat(arrays) - flat(base)
    got, _ = outcome([{"type": "clip_norm", "max_norm": 2.0}], arrays, base, tmp=tmp_path)
    wanted = flat(base) + update * (2.0 / np.linalg.norm(update))
    assert np.allclose(flat(got), wanted, atol=1e-3)  # half precision of one tensor
    assert np.array_equal(got["n"], arrays["n"])
    assert np.allclose(np.linalg.norm(got["w"] - base["w"]), np.linalg.norm(wanted[-1200:] - 1), rtol=1e-6)


def test_clip_norm_leaves_a_small_update_as_it_is(tmp_path: Path) -> None:
    arrays = sample()
    work = Work({"params_type": "DIFF"}, key=KEY)
    assert run([{"type": "clip_norm", "max_norm": 1e6}], dump(*encode(arrays)), tmp_path / "o", work) == "same"


def test_clip_value_and_rounding(tmp_path: Path) -> None:
    arrays = {"w": np.array([-3.0, -0.126, 0.0, 0.124, 9.0])}
    got, _ = outcome(
        [{"type": "clip_value", "limit": 1.0}, {"type": "round", "decimals": 2}],
        arrays,
        meta={"params_type": "DIFF"},
        tmp=tmp_path,
    )
    assert np.array_equal(got["w"], [-1.0, -0.13, 0.0, 0.12, 1.0])
    got, _ = outcome([{"type": "round", "bits": 3}], {"w": np.array([1.0, 1.06, 100.0, -0.3])}, tmp=tmp_path)
    assert np.array_equal(got["w"], [1.0, 1.0, 96.0, -0.3125])


@pytest.mark.parametrize("share", [0, 10, 50, 97.3, 100])
def test_percentile_is_numpys_over_all_tensors(share: float) -> None:
    arrays = sample()
    assert percentile(model(**arrays), share) == pytest.approx(np.percentile(np.abs(flat(arrays)), share), rel=1e-12)


def test_order_statistics_do_not_need_to_hold_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for ten candidates only, all passes of the radix selection are needed; ties included."""
    monkeypatch.setattr("fl_runtime.filters.order.FEW", 10)
    values = np.concatenate([RNG.normal(size=500), np.full(100, 0.25), [0.0, -0.0]])
    ordered = np.sort(np.abs(values))
    for rank in (0, 1, 2, 150, 300, 601):
        assert kth(model(w=values), rank) == ordered[rank]


def test_percentile_privacy_shares_the_largest_part_of_the_update_per_step(tmp_path: Path) -> None:
    arrays, base, steps, gamma = sample(), received(), 4, 0.2
    update = (flat(arrays) - flat(base)) / steps
    cut = np.percentile(np.abs(update), 60)
    wanted = flat(base) + steps * np.where(np.abs(update) < cut, 0, np.clip(update, -gamma, gamma))
    filters = [{"type": "percentile", "percentile": 60, "gamma": gamma}]
    got, _ = outcome(filters, arrays, base, {"meta": {"NUM_STEPS_CURRENT_ROUND": steps}}, tmp_path)
    assert np.allclose(flat(got)[:7], wanted[:7], rtol=1e-12)
    assert np.allclose(flat(got), wanted, atol=2e-3)


def test_gaussian_noise_has_its_sigma_and_is_another_each_time(tmp_path: Path) -> None:
    size = BLOCK + 1000
    first, _ = outcome([{"type": "gaussian_noise", "sigma": 0.5}], {"w": np.zeros(size)}, tmp=tmp_path)
    assert first["w"].std() == pytest.approx(0.5, rel=0.01)
    assert abs(first["w"].mean()) < 0.01
    assert abs(np.corrcoef(first["w"][:1000], first["w"][BLOCK:])[0, 1]) < 0.2  # blocks have noise of their own
    two, _ = outcome([{"type": "gaussian_noise", "sigma": 0.5}] * 2, {"w": np.zeros(size)}, tmp=tmp_path)
    assert two["w"].std() == pytest.approx(0.5 * np.sqrt(2), rel=0.01)  # two filters, independent
    relative, _ = outcome(
        [{"type": "gaussian_noise", "sigma0": 0.1, "max_percentile": 50}], {"w": np.full(size, 3.0)}, tmp=tmp_path
    )
    assert (relative["w"] - 3).std() == pytest.approx(0.3, rel=0.01)


def test_a_scan_sees_the_noise_that_is_written(tmp_path: Path) -> None:
    """Noise, then a clip of the norm: the second pass must see the same noise as the first."""
    filters = [{"type": "gaussian_noise", "sigma": 1.0}, {"type": "clip_norm", "max_norm": 5.0}]
    got, _ = outcome(filters, {"w": np.zeros(BLOCK + 5)}, meta={"params_type": "DIFF"}, tmp=tmp_path)
    assert np.linalg.norm(got["w"]) == pytest.approx(5.0, rel=1e-9)


def test_the_gaussian_mechanism_clips_adds_and_accounts(tmp_path: Path) -> None:
    arrays = {"w": np.full(BLOCK + 9, 2.0), "n": np.arange(4)}
    base = {"w": np.full(BLOCK + 9, 1.0), "n": np.full(4, 9)}
    filters = [{"type": "dp_gaussian", "clip": 3.0, "noise_multiplier": 0.5, "delta": 1e-6}]
    got, meta = outcome(filters, arrays, base, tmp=tmp_path, releases=4)
    noise = got["w"] - 1.0 - 3.0 / np.sqrt(BLOCK + 9)
    assert noise.std() == pytest.approx(1.5, rel=0.01)
    assert np.array_equal(got["n"], base["n"])  # counts would leave without noise
    (line,) = meta["meta"]["privacy"]
    assert line["releases"] == 4
    orders = np.linspace(1.001, 200, 200_000)
    reference = (4 * orders * (2 / 0.5) ** 2 / 2 + np.log(1e6) / (orders - 1)).min()
    assert line["epsilon"] == pytest.approx(reference, rel=1e-4) == gaussian_epsilon(0.5, 4, 1e-6)


def test_the_laplace_mechanism_clips_in_l1(tmp_path: Path) -> None:
    size = BLOCK + 9
    filters = [{"type": "dp_laplace", "clip": 2.0, "epsilon": 4.0}]
    got, meta = outcome(filters, {"w": np.full(size, 1.0)}, meta={"params_type": "DIFF"}, tmp=tmp_path)
    noise = got["w"] - 2.0 / size
    assert np.abs(noise).mean() == pytest.approx(2 * 2.0 / 4.0, rel=0.01)
    assert meta["meta"]["privacy"][0]["epsilon"] == 4.0


def test_svt_releases_exactly_its_fraction_within_gamma(tmp_path: Path) -> None:
    arrays = {"w": RNG.normal(size=(400, 50)), "b": RNG.normal(size=100)}
    filters = [{"type": "svt", "fraction": 0.1, "epsilon": 1.0, "noise_var": 1.0, "gamma": 0.01, "tau": 0.001}]
    meta = {"params_type": "DIFF", "meta": {"NUM_STEPS_CURRENT_ROUND": 10}}
    got, after = outcome(filters, arrays, meta=meta, tmp=tmp_path)
    values = flat(got)
    assert np.count_nonzero(values) == 2010  # ceil(20100 x 0.1)
    assert np.abs(values).max() <= 0.01 * 10 * (1 + 1e-12)
    assert after["meta"]["privacy"][0]["released"] == 2010


def test_svt_without_noise_is_the_threshold_and_the_clip(tmp_path: Path) -> None:
    """With budgets so large that all noise vanishes, the released ones are above tau, and clipped exactly."""
    values = np.concatenate([np.full(50, 0.5), np.full(50, 1e-9), np.full(50, 0.03)])
    filters = [{"type": "svt", "fraction": 0.3, "epsilon": 1e9, "noise_var": 1e12, "gamma": 0.1, "tau": 0.01}]
    got, _ = outcome(filters, {"w": values}, meta={"params_type": "DIFF"}, tmp=tmp_path)
    kept = np.flatnonzero(got["w"])
    assert len(kept) == 45
    assert not set(kept) & set(range(50, 100))
    assert np.allclose(got["w"][kept], np.clip(values, -0.1, 0.1)[kept], atol=1e-9)


def test_excluded_variables_stay_here(tmp_path: Path) -> None:
    arrays, base = sample(), received()
    got, _ = outcome([{"type": "exclude", "variables": ["w", "n"]}], arrays, base, tmp=tmp_path)
    assert np.array_equal(got["w"], base["w"])
    assert np.array_equal(got["n"], base["n"])
    assert np.array_equal(got["b"], arrays["b"])
    got, _ = outcome(
        [{"type": "include", "variables": ["re:[wh]"]}], arrays, meta={"params_type": "DIFF"}, tmp=tmp_path
    )
    assert not got["b"].any()
    assert np.array_equal(got["w"], arrays["w"])
    got, _ = outcome([{"type": "exclude", "variables": ["h"], "remove": True}], arrays, tmp=tmp_path)
    assert sorted(got) == ["b", "n", "w"]


def test_weights_become_differences_and_back(tmp_path: Path) -> None:
    arrays, base = sample(), received()
    got, meta = outcome(["to_diff"], arrays, base, tmp=tmp_path)
    assert meta["params_type"] == "DIFF"
    assert np.array_equal(got["w"], (arrays["w"].astype(np.float64) - base["w"]).astype(np.float32))
    again, meta = outcome(["to_full"], got, base, {"params_type": "DIFF"}, tmp_path)
    assert meta["params_type"] == "FULL"
    assert np.allclose(again["w"], arrays["w"], atol=1e-6)
    with pytest.raises(FilterError, match=r"to_diff failed: .*received no model"):
        outcome(["to_diff"], arrays, tmp=tmp_path)


def test_counts_and_flags_come_out_right_when_differences_of_them_are_averaged(tmp_path: Path) -> None:
    """A model with a counter of batches, positions, a mask and a flag; three sites, four rounds of ten batches."""
    held = {"w": np.zeros(4, np.float32), "batches": np.array(0), "places": np.arange(5)}
    held |= {"mask": np.array([7, 0, 250], np.uint8), "flag": np.array([True, False])}
    first = dict(held)
    for number in range(1, 5):
        shares = []
        for site in ("a", "b", "c"):
            trained = {**held, "w": held["w"] + np.float32(1), "batches": held["batches"] + 10}
            got, meta = outcome(["to_diff"], trained, held, tmp=tmp_path)
            assert meta["params_type"] == "DIFF"
            shares.append(Share(site, 7.0, model(**got), model(**held)))
            back, _ = outcome(["to_full"], got, held, {"params_type": "DIFF"}, tmp_path)
            assert all(np.array_equal(back[name], trained[name]) for name in trained)
        average(shares, tmp_path / "mean")
        with TensorFile(tmp_path / "mean") as mean:
            held = {name: mean.array(name).copy() for name in mean.tensors}
        assert held["batches"] == 10 * number
    assert np.array_equal(held["w"], np.full(4, 4.0))
    assert all(np.array_equal(held[name], first[name]) for name in ("places", "mask", "flag"))


def test_what_no_difference_can_say_stays_or_is_refused(tmp_path: Path) -> None:
    base = {"mask": np.array([9], np.uint8), "__optimizer__.m": np.ones(2), "n": np.array([-100], np.int8)}
    got, _ = outcome(["to_diff"], {**base, "mask": np.array([3], np.uint8)}, base, tmp=tmp_path)
    assert np.array_equal(got["mask"], [0])  # the server keeps its own
    assert np.array_equal(got["__optimizer__.m"], [1, 1])  # to which the server adds nothing
    with pytest.raises(FilterError, match="that of n does not fit I8"):
        outcome(["to_diff"], {**base, "n": np.array([100], np.int8)}, base, tmp=tmp_path)
    with pytest.raises(FilterError, match=r"the received model lacks n as I64 of the shape \[2\]"):
        outcome(["to_diff"], {**base, "n": np.arange(2)}, base, tmp=tmp_path)


def test_statistics_only(tmp_path: Path) -> None:
    arrays = {"w": RNG.normal(size=BLOCK + 77)}
    work = Work({"params_type": "FULL"}, key=KEY)
    assert run([{"type": "statistics"}], dump(*encode(arrays)), tmp_path / "o", work) == "none"
    (line,) = work.meta["meta"]["statistics"]
    for key, value in {"mean": arrays["w"].mean(), "std": arrays["w"].std(), "min": arrays["w"].min()}.items():
        assert line[key] == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert line["norm"] == pytest.approx(np.linalg.norm(arrays["w"]))


def test_metrics_and_meta_leave_only_when_named(tmp_path: Path) -> None:
    meta = {"metrics": {"loss": 1.0, "patients": 3.0}, "meta": {"NUM_STEPS_CURRENT_ROUND": 5, "path": "/data"}}
    _, after = outcome([{"type": "meta", "metrics": ["loss"]}], {"w": np.ones(2)}, meta=meta, tmp=tmp_path)
    assert after["metrics"] == {"loss": 1.0}
    assert after["meta"] == {"NUM_STEPS_CURRENT_ROUND": 5}


def test_nothing_with_nan_gets_through_a_norm(tmp_path: Path) -> None:
    for filters in (
        ["statistics"],
        [{"type": "clip_norm", "max_norm": 1}],
        [{"type": "percentile"}],
        [{"type": "svt"}],
    ):
        if filters == ["statistics"]:
            continue
        with pytest.raises(FilterError, match="NaN"):
            outcome(filters, {"w": np.array([1.0, np.nan])}, tmp=tmp_path)


def test_whole_numbers_and_all_floats_keep_their_type_and_bits(tmp_path: Path) -> None:
    arrays = {"big": np.array([2**62 + 1, -5]), "flag": np.array([True, False]), "w": np.ones(3, np.float16)}
    got, _ = outcome([{"type": "round", "decimals": 3}], arrays, tmp=tmp_path)
    for name, value in arrays.items():
        assert got[name].dtype == value.dtype
        assert np.array_equal(got[name], value)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"results": [{"type": "clip_nrom"}]}, "did you mean 'clip_norm'"),
        ({"results": [{"type": "clip_norm", "norm": 1}]}, "has no setting 'norm'"),
        ({"results": {"type": "clip_norm"}}, "must be lists"),
        ({"result": []}, "filters.result is unknown"),
        ({"results": [{"path": "../x.Y"}]}, "module.Class"),
        ({"server": {"results": [{"path": "x.Y"}]}}, "on the server are named ones"),
    ],
)
def test_a_wrong_description_says_what_is_wrong(document: dict, words: str) -> None:
    with pytest.raises(JobSpecError) as error:
        parse_filters(document, "job.yml")
    assert words in str(error.value)


def test_flares_names_are_known() -> None:
    assert parse_filters({"results": ["SVTPrivacy"]}, "job.yml") == {"results": [{"type": "svt"}]}
