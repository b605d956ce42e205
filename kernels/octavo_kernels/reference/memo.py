"""``of_last_call``: what every layer of a step would compute alike is computed by the first of them. Knows no kernel."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def of_last_call(function: Callable[..., T]) -> Callable[..., T]:
    """Remember the last result of a pure ``function`` for as long as its arguments stay the same.

    Tensors of whole numbers (slots, page tables: small) are the same if their contents are, so that changing one in place is
    safe; those of floating-point numbers (a model's tables: large and constant) if they are one object. Nobody may change the
    result.
    """
    last: tuple[tuple, T] | None = None

    @wraps(function)
    def remembering(*arguments: Any) -> T:
        nonlocal last
        known = last
        if known is not None and len(known[0]) == len(arguments) and all(map(_same, known[0], arguments)):
            return known[1]
        result = function(*arguments)
        last = tuple(map(_kept, arguments)), result
        return result

    return remembering


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor):
        return one == other
    if one.is_floating_point():
        return one is other
    return one.dtype == other.dtype and torch.equal(one, other)


def _kept(argument: Any) -> Any:
    return argument.clone() if isinstance(argument, torch.Tensor) and not argument.is_floating_point() else argument
