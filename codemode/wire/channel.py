"""Opening the gRPC channel that a URL and a TLS configuration name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from codemode.config import GrpcTlsConfig

MAX_MESSAGE_BYTES = 64 << 20
# What comes has the longest value that a sandbox may send, and some words about it.
_MAX_ANSWER_BYTES = MAX_MESSAGE_BYTES + (1 << 20)


def target_of(url: str) -> tuple[str, bool]:
    """The gRPC target of an executor's URL, and whether the URL asks for TLS."""
    if url.startswith("unix:"):
        return url, False
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url, False
    host = rest.split("/", 1)[0]
    if host and ":" not in host.rpartition("]")[2]:
        host += ":443" if scheme in ("https", "grpcs") else ":8001"
    return host, scheme in ("https", "grpcs")


def open_channel(url: str, tls: GrpcTlsConfig | None) -> grpc.aio.Channel:
    """Open a channel; call it on the SDK's loop."""
    target, secure = target_of(url)
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # Retries are ours: gRPC's own know nothing of executions that must not run twice.
        ("grpc.enable_retries", 0),
        # An executor that comes back is found within a moment, not after minutes of growing pauses.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A connection that died without a word is noticed while code runs silently.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Channels must not share a connection: closing one would not close it.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if tls is not None and tls.enabled:
        if tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        return grpc.aio.secure_channel(target, _credentials(tls), options=options)
    if secure:
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=options)
    return grpc.aio.insecure_channel(target, options=options)


def _credentials(tls: GrpcTlsConfig) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=tls.ca_file.read_bytes() if tls.ca_file else None,
        private_key=tls.key_file.read_bytes() if tls.key_file else None,
        certificate_chain=tls.cert_file.read_bytes() if tls.cert_file else None,
    )


def authorization(api_key: str) -> Sequence[tuple[str, str]]:
    """The metadata that carries the API key."""
    return (("authorization", f"Bearer {api_key}"),)
