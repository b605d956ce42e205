"""``weights_bytes``: what a decoder's weights take on its device, by their shapes alone. Reads nothing."""

import math

from octavo.models.linear import Precision, linear_bytes
from octavo.models.shape import ModelShape

EMBEDDING = "model.embed_tokens.weight"


def weights_bytes(shape: ModelShape, precision: Precision) -> int:
    """Bytes of all weights, in the forms in which they are used. A head that is the embedding takes nothing unless it is packed."""
    tensors = shape.tensors()
    vocab, hidden = tensors.pop(EMBEDDING)
    total = vocab * hidden * precision.weights.itemsize
    if shape.tied and precision.packed:
        total += linear_bytes(vocab, hidden, precision)
    for dims in tensors.values():
        if len(dims) == 2:
            total += linear_bytes(*dims, precision)
        else:
            total += math.prod(dims) * precision.activations.itemsize
    return total
