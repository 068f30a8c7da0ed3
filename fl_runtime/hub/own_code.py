"""A job's own code on the server (its controller or workflow): kept apart by the same keeper as scripts on a site.

It sees its bundle, the models of its own job as links, Python and the system's programs; neither the server's kit nor
its state, nor what other jobs have. It attaches through a socket of its own.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fl_runtime.agent import isolation
from fl_runtime.agent.place import Place
from fl_runtime.errors import RefusedError
from fl_runtime.job.spec import parse_spec, runs_own_code

if TYPE_CHECKING:
    from fl_runtime.hub.main import Hub
    from fl_runtime.hub.state import Job


def place_of(hub: Hub, job: Job, folder: Path) -> Place | None:
    """Where the job's process on the server runs; None for what runs none of the job's code.

    Raises:
        RefusedError: the server's policy wants more isolation than its machine has, or does not name that code.
    """
    workflow = job.spec["workflow"]
    if not runs_own_code(workflow):
        return None
    path = workflow.get("path")
    scripts = hub.kit.policy().scripts
    if "any" not in scripts and path not in scripts:
        raise RefusedError(
            "The server does not run the job's own code",
            participant=hub.kit.name,
            why=f"{path} is not on its list ({', '.join(scripts) or 'empty'})",
            next_step=f"in the server's local/policy.yml: scripts: [{', '.join([*scripts, str(path)])}]",
        )
    spec = replace(parse_spec(job.spec), script="", attach=False, executor={"path": str(path)}, network=None)
    return Place(hub.kit, hub.state, folder, isolation.choose(hub.kit, hub.state, job.id, spec), hub.blobs)


def leave(place: Place) -> None:
    """The job is over: what its process had is given back; its bundle, log and checkpoints stay."""
    place.sweep()
    for folder in ("spool", "shown"):
        with contextlib.suppress(FileNotFoundError):
            for path in (place.folder / folder).iterdir():
                path.unlink()
