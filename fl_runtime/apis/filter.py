"""Filter: changes what is in a shareable before it leaves, or after it came."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fl_runtime.apis.fl_component import FLComponent
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.shareable import Shareable


class ContentBlockedException(Exception):
    """A filter forbids the content to pass."""


class FilterChainType:
    TASK_DATA_CHAIN = "task_data"
    TASK_RESULT_CHAIN = "task_result"


class FilterSource:
    JOB = "job"
    SITE = "site"


class Filter(FLComponent, ABC):
    """Its arrays are maps of the file: one that is not touched costs nothing."""

    @abstractmethod
    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The shareable that goes on.

        Raises:
            ContentBlockedException: it must not.
        """
