"""Mutual TLS: server ports and client channels with a kit's certificates. Nothing below TLS 1.3 (fl_runtime.wire)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from fl_runtime.kit import Endpoint, Kit

_UNLIMITED = -1
Options = list[tuple[str, Any]]


def channel(kit: Kit, endpoint: Endpoint, *, bulk: bool = False) -> grpc.Channel:
    """A channel to the server; `bulk` gives one with its own connection and no limit on message size.

    The dialled address is the endpoint's; the name verified is always the kit's `server_name`.
    """
    credentials = grpc.ssl_channel_credentials(
        root_certificates=kit.ca, private_key=kit.key, certificate_chain=kit.certificate
    )
    options: Options = [
        ("grpc.ssl_target_name_override", kit.server_name),
        ("grpc.use_local_subchannel_pool", 1),  # control and bulk never share a connection
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ("grpc.keepalive_time_ms", 60_000),  # far under the 240 s after which cloud NATs forget
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if bulk:
        options += [
            ("grpc.max_receive_message_length", _UNLIMITED),
            ("grpc.max_send_message_length", _UNLIMITED),
            ("grpc.http2.lookahead_bytes", 8 * 1024 * 1024),
        ]
    if endpoint.proxy:
        options.append(("grpc.http_proxy", endpoint.proxy))
    return grpc.secure_channel(f"dns:///{endpoint.address}", credentials, options=options)


def server(kit: Kit, threads: int) -> grpc.Server:
    """A server that accepts only clients with a certificate of the kit's CA. Calls over `threads` are refused."""
    return grpc.server(
        ThreadPoolExecutor(max_workers=threads, thread_name_prefix="rpc"),
        maximum_concurrent_rpcs=threads,
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _UNLIMITED),
            ("grpc.max_send_message_length", _UNLIMITED),
            ("grpc.max_metadata_size", 16 * 1024),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.lookahead_bytes", 8 * 1024 * 1024),
            ("grpc.server_handshake_timeout_ms", 10_000),
        ],
    )


def server_credentials(kit: Kit) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(kit.key, kit.certificate)], root_certificates=kit.ca, require_client_auth=True)
