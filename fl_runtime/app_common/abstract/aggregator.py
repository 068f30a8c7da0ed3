"""Aggregator: takes results one by one, gives their combination."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fl_runtime.apis.fl_component import FLComponent
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.shareable import Shareable


class Aggregator(FLComponent, ABC):
    def reset(self, fl_ctx: FLContext) -> None:
        """Forget what was accepted."""

    @abstractmethod
    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Take a result (`fl_ctx.get_peer_context()` knows whose it is); False when it does not count."""

    @abstractmethod
    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """The combination of what was accepted since the last reset."""
