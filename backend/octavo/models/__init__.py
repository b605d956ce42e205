"""Decoders and their weights: from a folder or a file to logits. Knows tensors and the paged cache, no request and no schedule."""
