"""The runtime's process on a site: keeps the link to the server, runs jobs' scripts, keeps what they computed."""

from __future__ import annotations

import fl_runtime.wire  # noqa: F401 - before gRPC, which reads its settings at import
