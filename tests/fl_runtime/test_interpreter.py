"""Scripts of jobs run in another Python than the runtime's: one that has numpy and nothing else of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from federation import federation
from scripts import ADD

from fl_runtime.agent.interpreter import VARIABLE, imports, job_interpreter
from fl_runtime.errors import FlError, JobError

SAYS_WHO = (
    """
import importlib.util, sys
print("prefix", sys.prefix, flush=True)
others = ("yaml", "grpc", "cryptography", "torch")
print("others", [name for name in others if importlib.util.find_spec(name)], flush=True)
"""
    + ADD
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python of its own that has numpy, and nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    packages = next(folder.glob("lib/python3*/site-packages"))
    installed = Path(np.__file__).parent.parent
    for name in ("numpy", "numpy.libs"):
        if (installed / name).exists():
            shutil.copytree(installed / name, packages / name)  # a job sees its interpreter's folders, no links out
    return folder / "bin" / "python"


def test_the_sites_choice_goes_before_the_machines_and_that_before_the_runtimes_own(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job_interpreter({}, tmp_path).path == sys.executable
    assert not job_interpreter({}, tmp_path).environment
    monkeypatch.setenv(VARIABLE, str(bare))
    assert job_interpreter({}, tmp_path).path == str(bare)
    assert job_interpreter({"python": "/bin/sh"}, tmp_path).path == "/bin/sh"


def test_a_python_that_is_not_there_is_told_with_where_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(FlError) as caught:
        job_interpreter({"python": "/opt/nowhere/bin/python"}, tmp_path, "site-1")
    assert "local/resources.yml" in str(caught.value)
    assert caught.value.next_step


def test_pythonpath_holds_a_link_to_the_runtime_and_nothing_else(tmp_path: Path) -> None:
    folder = imports(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["fl_runtime"]
    (folder / "fl_runtime").unlink()
    (folder / "fl_runtime").symlink_to("/an/older/installation")
    assert imports(tmp_path) == folder
    assert (folder / "fl_runtime" / "client").is_dir()


def test_the_client_api_imports_with_numpy_alone(tmp_path: Path, bare: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(imports(tmp_path))}
    done = subprocess.run(
        [str(bare), "-c", "import fl_runtime.client as flare; flare.FLModel(params={})"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_job_trains_in_the_python_that_the_site_named(tmp_path: Path, bare: Path) -> None:
    with federation(tmp_path, sites=1, start=False) as made:
        resources = made.sites["site-1"].kit / "local/resources.yml"
        resources.write_text("python: /opt/nowhere/bin/python\n")
        made.start()
        model = {"tensors": {"w": [3]}, "init": "zeros"}
        folder = made.job("bare", SAYS_WHO, workflow={"type": "fedavg", "rounds": 2, "model": model})
        with made.session() as session:
            with pytest.raises(JobError, match="There is no interpreter at /opt/nowhere/bin/python"):
                session.wait(session.submit(folder), 120)
            resources.write_text(f"python: {bare}\n")  # read again for the next job
            job = session.submit(folder)
            assert session.wait(job, 120)["state"] == "FINISHED"
            log = "".join(text for _, text in session.logs(job, "site-1"))
    assert f"prefix {bare.parent.parent}" in log
    assert "others []" in log
