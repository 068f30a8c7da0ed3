"""ShareableGenerator: between what is learned and what travels."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fl_runtime.apis.fl_component import FLComponent
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.shareable import Shareable
from fl_runtime.app_common.abstract.learnable import Learnable


class ShareableGenerator(FLComponent, ABC):
    @abstractmethod
    def learnable_to_shareable(self, learnable: Learnable, fl_ctx: FLContext) -> Shareable: ...

    @abstractmethod
    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> Learnable: ...
