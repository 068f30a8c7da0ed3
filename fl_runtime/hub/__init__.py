"""The runtime's process on the server: registers sites, keeps jobs, pushes tasks, closes rounds."""

from __future__ import annotations

import fl_runtime.wire  # noqa: F401 - before gRPC, which reads its settings at import
