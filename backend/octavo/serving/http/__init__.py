"""The HTTP transport: what a probe asks."""
