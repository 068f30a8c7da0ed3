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

__all__ = [
    "FLModel",
    "MetaKey",
    "ParamsType",
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
]

TRAIN, EVALUATE, SUBMIT_MODEL = "train", "validate", "submit_model"
_session: Session | None = None


def init(rank: int | str | None = None) -> None:
    """Attach to the site's agent. Calling it again does nothing. `rank` overrides the environment's RANK."""
    global _session
    if _session is None:
        _session = Session()
        atexit.register(shutdown)
    if rank is not None:
        _session.rank = int(rank)


def _get() -> Session:
    if _session is None:
        raise RuntimeError("call init() first")
    return _session


def is_running() -> bool:
    """Block until there is a task (True) or the job is over (False)."""
    return _get().wait()


def receive(timeout: float | None = None) -> FLModel | None:
    """The task's model; the same until `send()`. None when the job is over. (`timeout` is FLARE's.)"""
    return _get().receive()


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
