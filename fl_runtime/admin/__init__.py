"""What an admin does with a federation, from their kit: `Session`. The commands, the console and others stand on it.

with Session("kits/ana@hospital-a.example") as session:
    job = session.submit("examples/digits")
    session.monitor(job, print)
    session.download(job, "results")
"""

from __future__ import annotations

import fl_runtime.wire  # noqa: F401 - before gRPC, which reads its settings at import
from fl_runtime.admin.session import FINAL, Session

__all__ = ["FINAL", "Session"]
