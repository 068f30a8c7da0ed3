"""Puts this folder's helpers (`stack_graph`, `stack_samples`) within reach of its tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
