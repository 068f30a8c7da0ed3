"""ModelPersistor: loads the first model, saves each next one."""

from __future__ import annotations

from abc import abstractmethod

from fl_runtime.apis.fl_context import FLContext
from fl_runtime.app_common.abstract.learnable import Learnable
from fl_runtime.app_common.abstract.learnable_persistor import LearnablePersistor
from fl_runtime.app_common.abstract.model import ModelLearnable


class ModelPersistor(LearnablePersistor):
    def load(self, fl_ctx: FLContext) -> ModelLearnable:
        return self.load_model(fl_ctx)

    def save(self, learnable: Learnable, fl_ctx: FLContext) -> None:
        if isinstance(learnable, ModelLearnable):
            self.save_model(learnable, fl_ctx)

    @abstractmethod
    def load_model(self, fl_ctx: FLContext) -> ModelLearnable: ...

    @abstractmethod
    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None: ...
