"""Generate fedspan_pb2.py and its types anew: `python -m fl_runtime.proto.generate` (needs grpcio-tools, extra `dev`).

Only messages are generated. The services' methods are registered by hand in fl_runtime/wire/rpc.py: bulk methods carry
raw bytes, and generated stubs would bind the runtime to the patch release of the generator.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    root = Path(__file__).resolve().parents[2]
    argv = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", f"--python_out={root}", f"--pyi_out={root}"]
    return subprocess.call([*argv, "fl_runtime/proto/fedspan.proto"], cwd=root)


if __name__ == "__main__":
    sys.exit(main())
