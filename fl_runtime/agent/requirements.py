"""What a job requires, against what this site's interpreter for jobs has.

Nothing is installed, unless the site's policy names a folder of wheels: then what lacks is installed from it, and from
nowhere else, into a folder of this one job. Wheels only: installing one runs none of its code.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from fl_runtime.agent.interpreter import job_interpreter
from fl_runtime.errors import RefusedError
from fl_runtime.job import requirements
from fl_runtime.job.spec import JobSpec
from fl_runtime.kit import Kit, machine_path

log = logging.getLogger("fedspan.agent")

_CHECK_S, _INSTALL_S = 60, 600


def provide(kit: Kit, state: Path, spec: JobSpec, target: Path) -> None:
    """Check, and install into `target` what may be.

    Raises:
        RefusedError: something lacks; names it.
    """
    if not spec.requirements:
        return
    python = job_interpreter(kit.resources(), state, kit.name).path
    lacking = _missing(python, spec, target)
    wheels = kit.policy().wheels
    if lacking and wheels:
        folder = machine_path(wheels)
        if not folder.is_dir():
            raise _refused(kit, f"local/policy.yml names the wheels' folder {wheels}, and there is none", None)
        _install(kit, python, lacking, folder, target)
        lacking = _missing(python, spec, target)
    if lacking:
        where = "" if not wheels else f" (its folder {wheels} has none that fits)"
        raise _refused(
            kit, f"it requires {'; '.join(lacking.values())}{where}", f"{python} -m pip install …, on the site"
        )


def _missing(python: str, spec: JobSpec, target: Path) -> dict[str, str]:
    done = subprocess.run(
        [python, requirements.__file__],
        input=json.dumps(list(spec.requirements)),
        capture_output=True,
        text=True,
        timeout=_CHECK_S,
        check=False,
        cwd="/",
        env={**_environment(), "PYTHONPATH": f"{target}:{os.environ.get('PYTHONPATH', '')}".strip(":")},
    )
    if done.returncode != 0:
        raise RefusedError(
            "The job is refused", why=f"{python} can't check its requirements: {done.stderr[-300:].strip()}"
        )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _install(kit: Kit, python: str, lacking: Mapping[str, str], folder: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    argv = [
        *(python, "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-input", "install", "--quiet"),
        *("--no-index", "--only-binary", ":all:", "--find-links", str(folder), "--no-cache-dir"),
        *("--target", str(target), "--", *lacking),
    ]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=_INSTALL_S, check=False, cwd="/", env=_environment()
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise _refused(
            kit, f"it requires {', '.join(lacking)}, which {folder} does not provide: {said}", f"ls {folder}"
        )
    log.info("installed from %s for one job: %s", folder, ", ".join(lacking))


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}


def _refused(kit: Kit, why: str, next_step: str | None) -> RefusedError:
    return RefusedError("The job is refused", participant=kit.name, why=why, next_step=next_step)
