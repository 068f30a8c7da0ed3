"""The way from a machine to the server, looked at with plain sockets. Run by a machine's own Python (3.8 or newer).

Words: HOST:PORT, the proxy's URL or nothing, the name to ask for in TLS, seconds. Prints one JSON line: `proxy`,
`failed` (why no connection came about), `certificate` (DER in base64, whoever signed it), `tls` (why there was none).
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import sys
from typing import Any


def connect(server: str, proxy: str, seconds: float) -> socket.socket:
    """A connection to the server, through the proxy where there is one. Raises OSError with the cause."""
    host, _, port = server.rpartition(":")
    if not proxy:
        return socket.create_connection((host.strip("[]"), int(port)), seconds)
    place = proxy.split("//")[-1].rstrip("/").rpartition("@")[2]
    there, _, on = place.partition(":")
    way = socket.create_connection((there, int(on or 3128)), seconds)
    way.sendall(f"CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n".encode())
    reply = b""
    while b"\r\n\r\n" not in reply and len(reply) < 65536:
        piece = way.recv(4096)
        if not piece:
            break
        reply += piece
    first = reply.split(b"\r\n", 1)[0].decode("latin-1")
    if " 200" not in first:
        way.close()
        raise OSError("the proxy answers: " + (first or "nothing"))
    return way


def look(server: str, proxy: str, name: str, seconds: float) -> dict[str, Any]:
    """What the way is like."""
    found: dict[str, Any] = {"proxy": proxy}
    try:
        connection = connect(server, proxy, seconds)
    except (OSError, ValueError) as error:
        found["failed"] = str(error) or type(error).__name__
        return found
    # not verified here: whoever asked wants to see the certificate, whosever it is
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with connection, context.wrap_socket(connection, server_hostname=name) as tls:
            found["certificate"] = base64.b64encode(tls.getpeercert(True) or b"").decode()
    except (OSError, ValueError) as error:
        found["tls"] = str(error) or type(error).__name__
    return found


if __name__ == "__main__":
    print(json.dumps(look(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))))
