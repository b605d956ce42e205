"""``connection_limits``: the flags about connections and metadata, as what a gRPC server holds its clients to."""

from octavo.serving.http2.limits import Limits
from octavo.serving.options import CompressionLevel, ServeOptions

# Zlib's, as fast as it can be, as it is by itself, and as small as it can be.
_LEVELS = {CompressionLevel.NONE: 0, CompressionLevel.LOW: 1, CompressionLevel.MEDIUM: 6, CompressionLevel.HIGH: 9}


def connection_limits(options: ServeOptions) -> Limits:
    """What the flags say, whose times are milliseconds."""
    o = options
    return Limits(
        max_message=o.grpc_max_message_size,
        max_metadata=o.grpc_max_metadata_size,
        max_streams=o.grpc_max_concurrent_streams,
        keepalive_time=o.grpc_keepalive_time / 1e3,
        keepalive_timeout=o.grpc_keepalive_timeout / 1e3,
        keepalive_without_calls=o.grpc_keepalive_permit_without_calls,
        pings_without_data=o.grpc_http2_max_pings_without_data,
        ping_interval=o.grpc_http2_min_recv_ping_interval_without_data / 1e3,
        ping_strikes=o.grpc_http2_max_ping_strikes,
        max_age=None if o.grpc_max_connection_age is None else o.grpc_max_connection_age / 1e3,
        max_age_grace=None if o.grpc_max_connection_age_grace is None else o.grpc_max_connection_age_grace / 1e3,
        compression=_LEVELS[o.grpc_infer_response_compression_level],
    )
