"""gRPC calls over HTTP/2 (RFC 9113, 7541), for callbacks on one event loop. Knows nothing of Triton, models or credentials."""
