"""The Client API by itself: light, clear when misused, and the same objects that FLARE's users know."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from federation import Federation

from fl_runtime.client import FLModel, ParamsType
from fl_runtime.client.model import from_wire, store, to_wire

W = {"tensors": {"w": [5]}}


def test_importing_it_brings_no_grpc_no_protobuf_and_no_torch() -> None:
    code = (
        "import sys, fl_runtime.client\n"
        "print([m for m in ('grpc', 'google.protobuf', 'torch', 'cryptography', 'yaml') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_status_needs_no_grpc_either() -> None:
    code = "import sys, fl_runtime.status, fl_runtime.supervise, fl_runtime.__main__\nprint('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_outside_of_a_job_it_says_how_to_run() -> None:
    code = "import fl_runtime.client as flare; flare.init()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "This script does not run inside a federated job" in done.stderr
    assert "fedspan job submit" in done.stderr


def test_params_type_takes_strings_and_defaults_to_full() -> None:
    assert FLModel(params={"w": np.zeros(1)}).params_type is ParamsType.FULL
    assert FLModel("DIFF", params={"w": np.zeros(1)}).params_type is ParamsType.DIFF
    assert FLModel(metrics={"a": np.float32(0.5)}).metrics == {"a": 0.5}
    with pytest.raises(ValueError, match="HALF"):
        FLModel("HALF")
    with pytest.raises(TypeError):
        FLModel(params=[1, 2])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="metric 'a'"):
        FLModel(metrics={"a": "high"})  # type: ignore[dict-item]


def test_a_model_travels_whole() -> None:
    sent = FLModel(
        params={"w": np.arange(6, dtype=np.float32).reshape(2, 3), "s": np.float64(1.5)},
        optimizer_params={"m": np.ones(2)},
        metrics={"acc": 0.5},
        current_round=3,
        meta={"NUM_STEPS_CURRENT_ROUND": np.int64(12), "list": [1, "two", None]},
    )
    meta, plan = to_wire(sent)
    inline, file = store(plan, None)  # type: ignore[arg-type]
    assert file is None
    got = from_wire(meta, inline, "numpy")
    assert got.params is not None
    assert got.optimizer_params is not None
    assert np.array_equal(got.params["w"], sent.params["w"])  # type: ignore[index]
    assert got.params["s"].shape == ()
    assert np.array_equal(got.optimizer_params["m"], np.ones(2))
    assert (got.metrics, got.current_round) == ({"acc": 0.5}, 3)
    assert got.meta == {"NUM_STEPS_CURRENT_ROUND": 12, "list": [1, "two", None]}


def test_meta_takes_plain_data_only() -> None:
    with pytest.raises(TypeError, match="only numbers, texts, lists and maps"):
        to_wire(FLModel(meta={"f": object()}))


SCRIPT = """
import numpy as np
import fl_runtime.client as flare
flare.init(); flare.init()
seen = []
try:
    flare.send(flare.FLModel(params={"w": np.zeros(5, np.float32)}))
except RuntimeError as error:
    seen.append(str(error))
assert flare.is_running() and flare.is_running()
first = flare.receive()
assert first is flare.receive()
assert flare.is_train() and not flare.is_evaluate() and not flare.is_submit_model()
assert flare.get_task_name() == "train"
assert flare.system_info()["site_name"] == flare.get_site_name()
assert flare.get_config() == {"a": [1, 2]}
try:
    flare.get_data("other")
except KeyError as error:
    seen.append(str(error))
assert (first.current_round, first.total_rounds, first.start_round) == (0, 2, 0)
flare.send(first)
try:
    flare.send(first)
except RuntimeError as error:
    seen.append("again")
second = flare.receive()
assert second.current_round == 1 and second is not first
flare.send(second)
assert not flare.is_running() and flare.receive() is None and not flare.is_running()
print(seen, flare.get_job_id())
flare.shutdown()
"""


def test_it_behaves_as_documented_inside_a_job(running: Federation) -> None:
    folder = running.job(
        "api", SCRIPT, sites=["site-1"], config={"a": [1, 2]}, workflow={"type": "fedavg", "rounds": 2, "model": W}
    )
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        text = "".join(text for _, text in session.logs(job, "site-1", follow=True))
    assert "send() without a task" in text, text
    assert "it names: nothing" in text
    assert job in text


RANKS = """
import os, subprocess, sys
import fl_runtime.client as flare
if "RANK" not in os.environ:
    env = {**os.environ, "WORLD_SIZE": "3"}
    ranks = [subprocess.Popen([sys.executable, __file__], env={**env, "RANK": str(r)}) for r in range(3)]
    sys.exit(max(p.wait() for p in ranks))
flare.init()
while flare.is_running():
    model = flare.receive()
    os.write(1, f"rank {os.environ['RANK']} round {model.current_round}\\n".encode())
    model.params["w"] += 1 if os.environ["RANK"] == "0" else 100
    flare.send(model)
"""


def test_each_rank_gets_each_task_and_rank_0_answers(running: Federation) -> None:
    folder = running.job("ranks", RANKS, sites=["site-2"], workflow={"type": "fedavg", "rounds": 3, "model": W})
    with running.session() as session:
        job = session.submit(folder)
        session.wait(job, 120)
        text = "".join(text for _, text in session.logs(job, "site-2", follow=True))
        from safetensors.numpy import load_file

        model = load_file(session.download(job, running.root / "results") / "model.safetensors")
    assert model["w"].tolist() == [3.0] * 5
    assert {f"rank {rank} round {number}" for rank in range(3) for number in range(2)} <= set(text.splitlines()), text
