"""Octavo serves large language models from a paged KV cache, behind the protocols that serving platforms speak."""

__version__ = "0.1.0"
