"""LearnablePersistor: keeps what is learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from fl_runtime.apis.fl_component import FLComponent
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.app_common.abstract.learnable import Learnable


class LearnablePersistor(FLComponent, ABC):
    @abstractmethod
    def load(self, fl_ctx: FLContext) -> Learnable: ...

    @abstractmethod
    def save(self, learnable: Learnable, fl_ctx: FLContext) -> None: ...

    def get(self, model_file: str, fl_ctx: FLContext) -> Any:
        return None
