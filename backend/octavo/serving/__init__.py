"""Processes, transports and metrics: everything between a client's socket and a ``GenerateRequest``."""
