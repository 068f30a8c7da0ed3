"""The Client API: `import fl_runtime.client as flare`.

    flare.init()
    while flare.is_running():
        model = flare.receive()                    # the global model: model.params, model.current_round
        ...                                        # evaluate it, train from it, on data that stays here
        flare.send(flare.FLModel(params=..., metrics={"accuracy": ...}, meta={"NUM_STEPS_CURRENT_ROUND": n}))

The agent is reached over a Unix socket; nothing here imports gRPC.
"""

from __future__ import annotations

import atexit
import time
from pathlib import Path
from typing import Any

from fl_runtime.client.model import FLModel, MetaKey, ParamsType
from fl_runtime.client.session import Session
from fl_runtime.client.wire import AgentWire
from fl_runtime.errors import FlError

__all__ = [
    "FLModel",
    "MetaKey",
    "ParamsType",
    "current_session",
    "evaluate",
    "get_config",
    "get_data",
    "get_job_id",
    "get_site_name",
    "get_task_name",
    "init",
    "is_evaluate",
    "is_running",
    "is_submit_model",
    "is_train",
    "log",
    "receive",
    "send",
    "shutdown",
    "system_info",
    "train",
]

TRAIN, EVALUATE, SUBMIT_MODEL = "train", "validate", "submit_model"
_session: Session | None = None


def init(
    rank: int | str | None = None,
    job: str | None = None,
    site: str | Path | None = None,
    wait: float = 0.0,
    world: int | None = None,
    **_flare: Any,
) -> None:
    """Attach to the site's agent. Calling it again does nothing.

    Args:
        rank: overrides the environment's RANK.
        job, site: for a process that the agent has not started (a notebook): the job's id (needed when several wait),
            and the state folder of the site's agent, else FEDSPAN_SITE. The job must have `attach: true`.
        wait: seconds to wait for such a job.
        world: number of ranks; overrides the environment's WORLD_SIZE.
    """
    global _session
    if _session is not None:
        if rank is not None:
            _session.rank = int(rank)
        return
    until = time.monotonic() + wait
    while True:
        try:
            _session = Session(AgentWire.here(job, site), None if rank is None else int(rank), world)
            break
        except FlError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.3)
    atexit.register(shutdown)


def current_session() -> Session:
    """Raises RuntimeError before `init()`."""
    if _session is None:
        raise RuntimeError("call init() first")
    return _session


_get = current_session


def is_running() -> bool:
    """Block until there is a task (True) or the job is over (False).

    Every rank may ask. Those beside rank 0 are through with a task when they ask again, also without `receive` and
    `send`, and get the next one when rank 0 has answered.
    """
    return _get().running()


def receive(timeout: float | None = None) -> FLModel | None:
    """The task's model; the same until `send()`. None when the job is over, or after `timeout` seconds."""
    return _get().receive(timeout)


def send(model: FLModel, clear_cache: bool = True) -> None:
    """Answer the task; returns when the result is on disk at the site, whatever happens to the server.

    Raises:
        RuntimeError: there is no task to answer.
    """
    _get().send(model)


def get_task_name() -> str | None:
    """The current task's name (waits for one); None when the job is over."""
    return _get().task_name


def is_train() -> bool:
    return get_task_name() == TRAIN


def is_evaluate() -> bool:
    return get_task_name() in (EVALUATE, "evaluate")


def is_submit_model() -> bool:
    return get_task_name() == SUBMIT_MODEL


def log(key: str, value: float, data_type: Any = None, global_step: int | None = None, **meta: Any) -> None:
    """Stream a metric of this site: seen at once in `fedspan job show` and by monitors."""
    item: dict[str, Any] = {"key": str(key), "value": float(value), "time": time.time()}
    if global_step is not None:
        item["step"] = int(global_step)
    _get().log([item])


def get_job_id() -> str:
    return str(_get().info["job"])


def get_site_name() -> str:
    return str(_get().info["site"])


def get_config() -> dict[str, Any]:
    """The job's `config`."""
    return dict(_get().info["config"])


def get_data(name: str) -> Path:
    """Where the site keeps the data of this name.

    Raises:
        KeyError: the job did not name it in job.yml.
    """
    paths: dict[str, str] = _get().info["data"]
    if name not in paths:
        raise KeyError(
            f"job.yml does not name {name!r} under `data`; it names: {', '.join(sorted(paths)) or 'nothing'}"
        )
    return Path(paths[name])


def system_info() -> dict[str, Any]:
    """Federation, job id, site name, rank."""
    session = _get()
    return {
        "federation": session.info["federation"],
        "job_id": session.info["job"],
        "site_name": session.info["site"],
        "rank": session.rank,
    }


def shutdown() -> None:
    """Detach. The process may go on; it gets no more tasks."""
    global _session
    if _session is not None:
        _session.close()
        _session = None


from fl_runtime.client.decorators import evaluate, train  # noqa: E402 - they stand on what is above
