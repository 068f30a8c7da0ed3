"""Mutual TLS: server ports and client channels with a kit's certificates. Nothing below TLS 1.3 (fl_runtime.wire)."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from fl_runtime.errors import FlError
from fl_runtime.kit import Endpoint, Kit
from fl_runtime.names import BACKOFF_S, HANDSHAKE_WITHIN_S, KEEPALIVE_S, WELCOME_WITHIN_S

_UNLIMITED = -1
# The largest message that either side takes: the manifest of a blob of 8 TiB. Chunks of blobs have 1 MiB.
MAX_MESSAGE = 64 * 1024 * 1024
MAX_METADATA = 8 * 1024  # ours have some hundred bytes
MAX_CONNECTIONS = 4096  # of everybody, those that have not proven who they are included
HARD_CALLS = 4096  # threads at most; the gate (wire/identity.py) holds a lower limit that fits the federation
Options = list[tuple[str, Any]]
# Bytes under way on one connection, held by the receiver at worst. Fixed: gRPC's own estimate takes a busy receiver for
# a long way, and grew it until an agent held 500 MB.
WINDOW = 6 * 1024 * 1024
WINDOWS: Options = [("grpc.http2.lookahead_bytes", WINDOW), ("grpc.http2.bdp_probe", 0)]

CHANNEL: Options = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),  # gRPC's own limit is 4 MiB, and a larger message ends the stream
    ("grpc.use_local_subchannel_pool", 1),  # control and bulk never share a connection
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.initial_reconnect_backoff_ms", int(BACKOFF_S[0] * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(BACKOFF_S[1] * 1000)),
    # gRPC takes this for the time that TCP and TLS may take together: a small one shuts out links with a long way
    ("grpc.min_reconnect_backoff_ms", int(WELCOME_WITHIN_S * 1000)),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
BULK_CHANNEL: Options = [
    ("grpc.max_receive_message_length", _UNLIMITED),
    ("grpc.max_send_message_length", _UNLIMITED),
    *WINDOWS,
]
SERVER: Options = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", _UNLIMITED),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA),
    # Pings may come every 10 s, with or without calls; the default is 5 minutes, and GOAWAY for whoever is faster.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
    ("grpc.keepalive_timeout_ms", 20_000),
    *WINDOWS,
]


def channel(kit: Kit, endpoint: Endpoint, *, bulk: bool = False) -> grpc.Channel:
    """A channel to the server; `bulk` gives one with its own connection and no limit on message size.

    The dialled address is the endpoint's; the name verified is always the kit's `server_name`.
    """
    credentials = grpc.ssl_channel_credentials(
        root_certificates=kit.ca, private_key=kit.key, certificate_chain=kit.certificate
    )
    options = [*CHANNEL, ("grpc.ssl_target_name_override", kit.server_name)]
    if bulk:
        options += BULK_CHANNEL
    if endpoint.proxy:
        options.append(("grpc.http_proxy", endpoint.proxy))
    return grpc.secure_channel(f"dns:///{endpoint.address}", credentials, options=options)


def server(
    kit: Kit, calls: int = HARD_CALLS, *, handshake_s: float = HANDSHAKE_WITHIN_S, connections: int = MAX_CONNECTIONS
) -> grpc.Server:
    """A server that accepts only clients with a certificate of the kit's CA.

    Threads are made when needed. Calls over `calls` are refused by gRPC itself; connections over `connections` are
    closed at once, and one that has not come to its first HTTP/2 frame after `handshake_s` seconds is closed too.
    """
    return grpc.server(
        ThreadPoolExecutor(max_workers=calls, thread_name_prefix="rpc"),
        maximum_concurrent_rpcs=calls,
        options=[
            *SERVER,
            ("grpc.server_handshake_timeout_ms", int(handshake_s * 1000)),
            ("grpc.max_allowed_incoming_connections", connections),
        ],
    )


def server_credentials(kit: Kit) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(kit.key, kit.certificate)], root_certificates=kit.ca, require_client_auth=True)


def check_shut_out(kit: Kit, host: str, port: int) -> None:
    """Knock at our own port as a client of TLS 1.2 would, with every cipher suite there is.

    Raises:
        FlError: it was let in. gRPC was imported before `fl_runtime.wire` could tell it what to offer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=kit.ca.decode())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # ssl reads a chain from files only; 0600
        file.write(kit.key + b"\n" + kit.certificate)
        file.flush()
        context.load_cert_chain(file.name)
    with contextlib.suppress(OSError), socket.create_connection((host, port), 5) as plain:
        with context.wrap_socket(plain) as let_in:
            version = let_in.version()
        raise FlError(
            "The server does not start: its port takes connections of an old TLS",
            participant=kit.name,
            why=f"{version} was let in; gRPC was imported before fl_runtime.wire",
            next_step="import fl_runtime.wire first in whatever starts the server",
        )
