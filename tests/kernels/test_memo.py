"""``of_last_call``: remembers, and never a moment too long."""

import torch

from octavo_kernels.reference.memo import of_last_call


def counting():
    calls = []

    @of_last_call
    def total(numbers, factor=1):
        calls.append(factor)
        return numbers.sum() * factor

    return total, calls


def test_equal_contents_are_the_same_call():
    total, calls = counting()
    assert total(torch.tensor([1, 2]), 3) == total(torch.tensor([1, 2]), 3) == 9
    assert calls == [3]


def test_anything_else_is_another_call():
    total, calls = counting()
    numbers = torch.tensor([1, 2])
    assert total(numbers, 3) == 9
    numbers += 1
    assert total(numbers, 3) == 15, "changed in place"
    assert total(numbers, 4) == 20
    assert total(numbers.int(), 4) == 20
    assert total(torch.tensor([2, 3, 0]), 4) == 20
    assert total(torch.tensor([2, 3, 0])) == 5
    assert calls == [3, 3, 4, 4, 4, 1]


def test_floating_point_tensors_go_by_identity():
    total, calls = counting()
    numbers = torch.ones(3)
    assert total(numbers) == total(numbers) == total(torch.ones(3)) == 3
    assert len(calls) == 2
