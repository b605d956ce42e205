"""The HTTP transport: KServe v2 REST and the generate endpoints, with the answers of Triton."""
