"""The Client API for PyTorch Lightning: `import fl_runtime.client.lightning as flare`.

    trainer = Trainer(max_epochs=1, ...)
    flare.patch(trainer)
    while flare.is_running():
        trainer.validate(model, datamodule=data)   # the global model's metrics: they go with the result
        trainer.fit(model, datamodule=data)        # starts from the global model, sends what it has become

A task that only evaluates is answered by `trainer.validate`; the `trainer.fit` after it does nothing. Without a task
(outside of the loop) the trainer is what it was. Works with `lightning.pytorch` and `pytorch_lightning`; under DDP
every rank loads the global model and rank 0 answers.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import fl_runtime.client as flare
from fl_runtime.client import *  # noqa: F403 - the whole Client API is here, too
from fl_runtime.client.model import FLModel, MetaKey

__all__ = ["META", *(name for name in flare.__all__ if name not in ("train", "evaluate")), "patch"]
META = "__fl_meta__"  # an attribute of the LightningModule with this name goes into the result's meta
_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def patch(
    trainer: Any, restore_state: bool = True, load_state_dict_strict: bool = True, update_fit_loop: bool = True
) -> None:
    """Make a Trainer federated. Calls `init()`.

    Args:
        restore_state: optimizers and learning rate schedulers go on where the last round left them.
        load_state_dict_strict: the global model must have exactly the module's parameters.
        update_fit_loop: each round trains `max_epochs` (or `max_steps`) more; else they count over all rounds.

    Raises:
        TypeError: it is no Lightning Trainer.
    """
    base = _callback_of(trainer)
    flare.init(rank=trainer.global_rank, world=trainer.world_size)
    if any(isinstance(callback, _Federated) for callback in trainer.callbacks):
        return
    kind = type("FederatedCallback", (_Federated, base), {})
    callback: _Federated = kind(trainer, restore_state, load_state_dict_strict, update_fit_loop)
    trainer.callbacks.append(callback)
    trainer.fit = callback.around(trainer.fit)


def _callback_of(trainer: Any) -> type[Any]:
    """Lightning's class Callback, from the package that the Trainer is of."""
    for cls in type(trainer).__mro__:
        for package in _PACKAGES:
            if cls.__module__.startswith(package + ".") and hasattr(trainer, "fit_loop"):
                made: type[Any] = importlib.import_module(package).Callback
                return made
    raise TypeError(f"patch() takes a Lightning Trainer, not {type(trainer).__name__}")


class _Federated:
    """The callback's own part; Lightning's hooks, with its names."""

    def __init__(self, trainer: Any, restore: bool, strict: bool, extend: bool) -> None:
        super().__init__()
        self._trainer = trainer
        self._restore, self._strict, self._extend = restore, strict, extend
        self._epochs, self._steps = trainer.fit_loop.max_epochs, trainer.fit_loop.max_steps
        self._metrics: tuple[str, dict[str, float]] = ("", {})  # the task, and what `validate` found for its model
        self._evaluated: str | None = None  # a task that `validate` has answered
        self._optimizers: list[Any] = []
        self._schedulers: list[Any] = []
        self._first_step = 0

    # --- trainer.fit

    def around(self, fit: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fit)
        def run(*args: Any, **kwargs: Any) -> Any:
            session = flare.current_session()
            evaluated, self._evaluated = self._evaluated, None
            if evaluated is not None and session.answered == evaluated and not session.has_task:
                return None  # that task was to evaluate, and is answered
            if flare.receive() is None:
                return None
            if flare.is_evaluate():
                self._validate(inspect.signature(fit).bind(*args, **kwargs).arguments)
                return None
            self._more()
            return fit(*args, **kwargs)

        return run

    def _validate(self, given: dict[str, Any]) -> None:
        """With the data that `fit` was given."""
        data, train = given.get("datamodule"), given.get("train_dataloaders")
        if data is None and hasattr(train, "val_dataloader"):
            data = train
        self._trainer.validate(given["model"], dataloaders=given.get("val_dataloaders"), datamodule=data)
        self._evaluated = None

    def _more(self) -> None:
        """Lightning counts epochs and steps over all calls of `fit`: this one may do as many as the first."""
        loop = self._trainer.fit_loop
        if not self._extend:
            return
        if self._epochs is None:  # not said: what Lightning took for it at the first fit
            self._epochs = loop.max_epochs
        if self._epochs not in (None, -1):
            loop.max_epochs = loop.epoch_progress.current.processed + self._epochs
        if self._steps not in (None, -1):
            loop.epoch_loop.max_steps = self._trainer.global_step + self._steps

    # --- hooks

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._load(pl_module)
        self._first_step = trainer.global_step

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not self._restore:
            return  # what is kept is empty before the first round's end
        for optimizer, state in zip(trainer.optimizers, self._optimizers, strict=False):
            optimizer.load_state_dict(state)
        for config, state in zip(trainer.lr_scheduler_configs, self._schedulers, strict=False):
            config.scheduler.load_state_dict(state)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        session = flare.current_session()
        if self._restore:
            self._optimizers = [optimizer.state_dict() for optimizer in trainer.optimizers]
            self._schedulers = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        params = trainer.strategy.lightning_module_state_dict()
        work = session.work()
        task, metrics = self._metrics
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: trainer.global_step - self._first_step, **getattr(pl_module, META, {})}
        flare.send(FLModel(params=params, metrics=metrics if work is not None and task == work.id else None, meta=meta))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if _alone(trainer):
            self._load(pl_module)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        if _alone(trainer):
            self._load(pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        session = flare.current_session()
        if not _alone(trainer) or not session.has_task:
            return
        work = session.work()
        assert work is not None, "there is a task"
        found = {key: float(value) for key, value in trainer.callback_metrics.items() if value.numel() == 1}
        self._metrics = (work.id, found)
        if flare.is_evaluate():
            self._evaluated = work.id
            flare.send(FLModel(metrics=found, meta=dict(getattr(pl_module, META, {}))))

    def _load(self, module: Any) -> None:
        """The global model of the task, if there is one; in the first round there may be no model."""
        if flare.current_session().has_task:
            received = flare.receive()
            if received is not None and received.params:
                module.load_state_dict(received.params, strict=self._strict)


def _alone(trainer: Any) -> bool:
    """Not the validation inside of `fit`."""
    return str(getattr(trainer.state.fn, "value", trainer.state.fn)) in ("validate", "test")
