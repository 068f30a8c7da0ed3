"""A whole federation on this machine without network, kits or agents: `simulate(FOLDER, sites=100, workers=4)`.

The same job code and the same workflow code as in a real federation, and with the same seeds the same bits. The
server's part is the real one (board, quorum, store, blobs, the job's own process); only sites are different: each is a
thread in one of a few worker processes, with module globals of its own, and one is active in each worker (`isolate`:
each is a process).
"""

from __future__ import annotations

from fl_runtime.simulator.run import Simulation, simulate

__all__ = ["Simulation", "simulate"]
