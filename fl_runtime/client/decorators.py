"""Decorators `train` and `evaluate`: a function's first argument is the received model, what it returns is sent.

@flare.evaluate
def evaluate(model): ... return {"accuracy": 0.9}

@flare.train
def train(model, epochs=1): ... return flare.FLModel(params=...)

flare.init()
while flare.is_running():
    model = flare.receive()
    evaluate(model)        # its metrics go with the next result; a task that only evaluates is answered with them
    train(model)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import fl_runtime.client as flare
from fl_runtime.client.model import FLModel

_noted: dict[int, tuple[str, Mapping[str, float]]] = {}  # by session: the task, and the metrics found for its model
_over: dict[int, str] = {}  # by session: a task that was answered by `evaluate`


def _without_first(function: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The model is given by place, also where it was named."""
    first = next(iter(inspect.signature(function).parameters), None)
    return {key: value for key, value in kwargs.items() if key != first}


def train(function: Callable[..., FLModel] | None = None, **settings: Any) -> Any:
    """Run it with the received model first, send the FLModel that it returns (with the metrics that `evaluate` found).

    Raises:
        TypeError: it returned something else.
    """

    def decorate(inner: Callable[..., FLModel]) -> Callable[..., Any]:
        @functools.wraps(inner)
        def run(*args: Any, **kwargs: Any) -> FLModel | None:
            flare.init()
            session = flare.current_session()
            evaluated = _over.pop(id(session), None)
            if evaluated is not None and session.answered == evaluated and not session.has_task:
                return None  # that task was to evaluate, and is answered
            model = flare.receive()
            if model is None:
                return None
            made = inner(model, *args[1:], **_without_first(inner, {**settings, **kwargs}))
            if not isinstance(made, FLModel):
                raise TypeError(f"a function under @train must return an FLModel, not {type(made).__name__}")
            work = session.work()
            task, metrics = _noted.pop(id(session), ("", {}))
            if work is not None and task == work.id and made.metrics is None:
                made.metrics = dict(metrics)
            flare.send(made)
            return made

        return run

    return decorate(function) if function is not None else decorate


def evaluate(function: Callable[..., Any] | None = None, *, metric: str = "score", **settings: Any) -> Any:
    """Run it with the received model first; note the metrics that it returns: a map, an FLModel, or one number, which
    is called `metric`. A task that only evaluates is answered with them at once."""

    def decorate(inner: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(inner)
        def run(*args: Any, **kwargs: Any) -> Any:
            flare.init()
            session = flare.current_session()
            model = flare.receive()
            work = session.work()
            if model is None or work is None:
                return None
            found = inner(model, *args[1:], **_without_first(inner, {**settings, **kwargs}))
            metrics = found.metrics if isinstance(found, FLModel) else found
            metrics = dict(metrics) if isinstance(metrics, Mapping) else {metric: metrics}
            sent = FLModel(metrics=metrics)
            _noted[id(session)] = (work.id, sent.metrics or {})
            if flare.is_evaluate():
                _over[id(session)] = work.id
                flare.send(sent)
            return found

        return run

    return decorate(function) if function is not None else decorate
