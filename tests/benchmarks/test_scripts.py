"""Every benchmark runs with tiny settings and prints, when asked for it, nothing but its line of JSON."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(script: str, *options: str, timeout: float = 280) -> dict[str, Any]:
    """The JSON of a run that may print nothing else."""
    argv = [sys.executable, str(BENCHMARKS / script), *options, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def positive(found: dict[str, Any], *keys: str) -> None:
    for key in keys:
        assert isinstance(found[key], (int, float)), (key, found)
        assert 0 < found[key] < math.inf, (key, found)


def test_rounds_measures_a_round_its_memory_and_the_baseline() -> None:
    found = run("rounds.py", "--model-mib", "8", "--sites", "2", "--rounds", "1", "--raw-mib", "16")
    positive(found, "round_s", "mb_s", "raw_mb_s", "share", "server_anon_mb", "site_anon_mb", "cpu_s")
    assert found["mb_s"] == pytest.approx(2 * 2 * 8 * 1.048576 / found["round_s"], rel=0.01)
    assert found["share"] == pytest.approx(found["mb_s"] / found["raw_mb_s"], abs=0.002)
    assert found["whole_round_s"] > found["round_s"]
    assert found["whole_share"] == pytest.approx(found["share"] * found["round_s"] / found["whole_round_s"], abs=0.002)
    assert found["site_anon_mb"] > 8 * 1.048576  # the script holds a model of its own


def test_store_counts_commits() -> None:
    found = run("store.py", "--seconds", "0.1")
    positive(found, "raw_fsync")
    positive(found["sqlite"], "commits", "events", "grouped")


def test_codecs_gives_ratio_speed_and_error() -> None:
    found = run("codecs.py", "--model-mib", "1")
    assert len(found) > 3
    for case in found.values():
        positive(case, "ratio", "encode_mb_s", "decode_mb_s")
        assert case["max_error"] >= 0


@pytest.mark.slow
def test_latency_measures_small_rounds_and_calls_during_bulk() -> None:
    options = ["--sites", "2", "--rounds", "3", "--bulk-sites", "2", "--bulk-mib", "16", "--calls", "10"]
    found = run("latency.py", *options)
    positive(found["rounds_ms"]["2"], "median_ms", "p90_ms")
    for key in ("call_ms", "raw_call_ms", "raw_bulk_call_ms"):
        positive(found[key], "median", "p90", "p99")
        assert found[key]["median"] <= found[key]["p99"]


@pytest.mark.slow
def test_starts_measures_starts_idle_memory_and_the_import() -> None:
    found = run("starts.py", "--runs", "1", "--idle", "0.5", "--no-torch")
    positive(
        found, "registered_s", "first_task_s", "server_anon_mb", "agent_anon_mb", "client_import_ms", "raw_start_s"
    )
    assert found["server_pss_mb"] >= found["server_anon_mb"]


@pytest.mark.slow
def test_algorithms_measures_the_server_for_each() -> None:
    options = ["--model-mib", "1", "--sites", "4", "--raw-mib", "16", "--only", "fedavg", "scaffold", "krum"]
    found = run("algorithms.py", *options)
    assert sorted(found["algorithms"]) == ["fedavg", "krum", "scaffold"]
    for case in found["algorithms"].values():
        positive(case, "server_anon_mb", "site_anon_mb", "seconds")
    positive(found, "server_anon_mb", "raw_server_anon_mb", "raw_mb_s")


@pytest.mark.slow
def test_simulator_measures_itself_beside_plain_torch() -> None:
    pytest.importorskip("torch")
    found = run("simulator.py", "--sites", "2", "--rounds", "1")
    positive(found, "simulator_s", "plain_torch_s", "share")
    assert len(found["round_s"]) == 1


@pytest.mark.slow
def test_push_measures_every_step_to_a_running_participant() -> None:
    found = run("push.py", "--machines", "2", "--runs", "1")
    steps = [f"step: {name}" for name in ("push", "install", "start")]
    positive(found, "bundle_mb", *steps, "one machine", "all machines at once", "cp -r of the bundle, here")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_deploy_measures_up_beside_its_critical_path_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = run("deploy.py", "--sites", "1", "--scale", "0.01", "--runs", "1", timeout=800)
    positive(found, "latencies_s", "alone_s", "up_s", "second_up_s", "status_s")
    assert found["critical_s"] == pytest.approx(found["latencies_s"] + found["alone_s"])
    assert found["ratio"] == pytest.approx(found["up_s"] / found["critical_s"])
    assert sorted(found["phases"]) == ["server", "site-1"]
    assert list(tmp_path.iterdir()) == []
