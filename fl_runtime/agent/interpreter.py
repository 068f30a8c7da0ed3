"""Which Python runs the scripts of jobs: the site's choice, the one its machine was given, or the runtime's own.

With another Python than the runtime's, a script still imports `fl_runtime.client`: PYTHONPATH names a folder that holds
a link to this package and nothing else, so that none of the runtime's dependencies hides one of that interpreter's.
`fl_runtime.client` needs numpy there, and ml_dtypes for bfloat16 tensors as numpy arrays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fl_runtime
from fl_runtime.errors import FlError

VARIABLE = "FEDSPAN_JOB_PYTHON"
FOLDER = "job-imports"


@dataclass(frozen=True)
class Interpreter:
    """`path`: absolute. `environment`: what its processes get beside their own variables."""

    path: str
    environment: Mapping[str, str] = field(default_factory=dict)


def job_interpreter(resources: Mapping[str, Any], state: Path, participant: str | None = None) -> Interpreter:
    """The interpreter for job scripts.

    Args:
        resources: local/resources.yml, whose `python` goes before everything.
        state: the runtime's state folder; the folder for PYTHONPATH lies there.

    Raises:
        FlError: the Python that was named is not there.
    """
    wanted = resources.get("python") or os.environ.get(VARIABLE) or sys.executable
    path = str(wanted)
    if path == sys.executable:
        return own_interpreter()
    if not os.path.isabs(path) or not os.access(path, os.X_OK):
        where = "`python` in local/resources.yml" if resources.get("python") else VARIABLE
        raise FlError(
            f"There is no interpreter at {path}",
            participant=participant,
            why=f"{where} names it for the scripts of jobs",
            next_step="name an absolute path there, or leave it out for the runtime's own Python",
        )
    return Interpreter(path, {"PYTHONPATH": str(imports(state))})


def own_interpreter() -> Interpreter:
    """The runtime's own."""
    return Interpreter(sys.executable)


def imports(state: Path) -> Path:
    """A folder with nothing but a link to this package, as it is installed now."""
    folder = state.absolute() / FOLDER
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # whatever our umask: jobs run as other users
    package, link = Path(fl_runtime.__file__).resolve().parent, folder / "fl_runtime"
    if not link.is_symlink() or os.readlink(link) != str(package):
        fresh = folder / f".fl_runtime.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(package, target_is_directory=True)
        os.replace(fresh, link)
    return folder
