"""The gRPC transport: KServe v2 with Triton's extensions, health and reflection."""
