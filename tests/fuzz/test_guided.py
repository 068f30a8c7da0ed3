"""Each target for a fixed time, guided by coverage. `FUZZ_SECONDS` says for how long (default 8)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from targets import TARGETS

pytest.importorskip("atheris", reason="the extra `fuzz` is not installed (pip install 'fedspan[fuzz]')")


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_that_coverage_leads_to_ends_in_anything_but_our_own_errors(name: str, tmp_path: Path) -> None:
    seconds = int(os.environ.get("FUZZ_SECONDS", "8"))
    argv = [sys.executable, str(Path(__file__).with_name("guided.py")), name, str(seconds)]
    env = {**os.environ, "TMPDIR": str(tmp_path)}  # libFuzzer ends the process without cleaning up
    try:
        done = subprocess.run(
            argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=seconds + 120, errors="replace"
        )
    finally:
        shutil.rmtree(tmp_path)
    assert done.returncode == 0, done.stderr[-1000:] + done.stdout[-3000:]  # atheris tells the exception on stdout
