"""EC2's instance metadata service, version 2, as cloud-init and the AWS SDKs ask it.

A token comes by PUT and is shown with each GET. The answer to the PUT has the hop limit that the instance was made with
as its TTL: behind one router more than allowed (a container's network) it does not arrive.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from deployer.sandbox.machines.nspawn.firmware import instance_id
from deployer.sandbox.machines.nspawn.rules import METADATA
from deployer.sandbox.model import MachineSpec

_TOKEN_S = 21600
Tree = dict[str, Any]
"""Folders are dicts, files are texts."""


def tree(spec: MachineSpec, mac: str) -> Tree:
    """Everything that the service shows of a machine."""
    hostname = f"ip-{spec.private_ip.replace('.', '-')}.{spec.region}.compute.internal"
    metadata: Tree = {
        "ami-id": "ami-sandbox",
        "hostname": hostname,
        "instance-id": instance_id(spec.id),
        "instance-type": spec.size,
        "local-hostname": hostname,
        "local-ipv4": spec.private_ip,
        "mac": mac,
        "placement": {"availability-zone": spec.zone or "", "region": spec.region},
        "network": {
            "interfaces": {
                "macs": {mac: {"device-number": "0", "local-ipv4s": spec.private_ip, "mac": mac}},
            }
        },
    }
    if spec.public_ip:
        metadata["public-ipv4"] = spec.public_ip
        metadata["network"]["interfaces"]["macs"][mac]["public-ipv4s"] = spec.public_ip
    if spec.login_keys:
        metadata["public-keys"] = {f"{number}": {"openssh-key": key} for number, (_, key) in enumerate(spec.login_keys)}
    document = {
        "accountId": spec.account,
        "availabilityZone": spec.zone,
        "instanceId": instance_id(spec.id),
        "instanceType": spec.size,
        "privateIp": spec.private_ip,
        "region": spec.region,
    }
    found: Tree = {"meta-data": metadata, "dynamic": {"instance-identity": {"document": json.dumps(document)}}}
    if spec.user_data:
        found["user-data"] = spec.user_data
    return found


def answer(found: Tree, path: str) -> str | None:
    """The text at a path such as /latest/meta-data/instance-id; None where there is nothing."""
    parts = [part for part in path.split("?")[0].split("/") if part]
    if not parts:
        return "latest"
    node: Any = found
    for part in parts[1:]:  # the first is the version; all are served alike
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    if isinstance(node, str):
        return node
    if parts[-1] == "public-keys":  # EC2 lists keys as number=name
        return "\n".join(f"{number}=key-{number}" for number in node)
    return "\n".join(f"{name}/" if isinstance(child, Mapping) else name for name, child in node.items())


class MetadataService:
    """The service of one machine; listens in the network namespace of the thread that makes it."""

    def __init__(self, found: Callable[[], Tree], hops: int, address: str = METADATA, port: int = 80) -> None:
        self.found, self.hops = found, hops
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()
        self._server = _Server((address, port), self)
        threading.Thread(target=self._server.serve_forever, name="metadata", daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def new_token(self, seconds: int) -> str:
        token = secrets.token_urlsafe(40)
        with self._lock:
            self._tokens[token] = time.monotonic() + seconds
        return token

    def valid(self, token: str) -> bool:
        with self._lock:
            return self._tokens.get(token, 0.0) > time.monotonic()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, where: tuple[str, int], service: MetadataService) -> None:
        self.service = service
        super().__init__(where, _Request)

    def server_bind(self) -> None:
        # http.server would ask a name server who it is.
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "EC2ws", ""

    @property
    def _service(self) -> MetadataService:
        return cast("_Server", self.server).service

    def do_PUT(self) -> None:
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if "X-Forwarded-For" in self.headers:
            self._say(403, "Forbidden")  # through a proxy: EC2 refuses that too
        elif self.path != "/latest/api/token":
            self._say(404, "Not Found")
        elif not seconds.isdigit() or not 1 <= int(seconds) <= _TOKEN_S:
            self._say(400, "Bad Request")
        else:
            self.connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, self._service.hops)
            self._say(200, self._service.new_token(int(seconds)))

    def do_GET(self) -> None:
        if not self._service.valid(self.headers.get("X-aws-ec2-metadata-token", "")):
            self._say(401, "Unauthorized")
        elif (text := answer(self._service.found(), self.path)) is None:
            self._say(404, "Not Found")
        else:
            self._say(200, text)

    def _say(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No log: paths are the machine's own business."""
