"""Kinds of streamed metrics, as scripts written for FLARE name them in `flare.log`. Here all of them are numbers."""

from __future__ import annotations

from enum import Enum


class AnalyticsDataType(Enum):
    SCALAR = "SCALAR"
    SCALARS = "SCALARS"
    METRIC = "METRIC"
    METRICS = "METRICS"
    PARAMETER = "PARAMETER"
    PARAMETERS = "PARAMETERS"
