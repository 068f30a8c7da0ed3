"""How bytes travel: TLS, identity, methods, blobs, and the diagnosis when they don't.

gRPC reads these variables once, when it is imported: so every package here that uses gRPC imports this one first, and
the hub looks at its own port before it serves anybody (`fl_runtime.wire.tls.check_shut_out`).
"""

from __future__ import annotations

import os

# Of TLS 1.2 only RSA cipher suites are offered: with ECDSA certificates no handshake below 1.3 can succeed (gRPC has no
# setting for the lowest version in Python). TLS 1.3 has suites of its own, which this does not touch.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"
# One line about each broken connection is ours to tell (wire/probe.py), not the C core's.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
