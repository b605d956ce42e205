"""apply_mask: against a set of allowed tokens."""

import pytest
import torch

from octavo_kernels import for_device

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = [pytest.mark.gpu] if DEVICE.type == "cuda" else []
PLACES = [
    pytest.param(for_device(torch.device("cpu")).apply_mask, torch.device("cpu"), id="twin"),
    pytest.param(for_device(torch.device("cuda")).apply_mask, DEVICE, id="triton", marks=ON_GPU),
]


@pytest.mark.parametrize(("apply_mask", "device"), PLACES)
@pytest.mark.parametrize("vocabulary", [31, 64, 9001, 9088, 40_001])
def test_what_is_not_allowed_cannot_be_drawn_and_all_else_stays(apply_mask, device, vocabulary) -> None:
    logits = torch.randn(5, vocabulary)
    allowed = torch.rand(7, vocabulary) < 0.3
    allowed[6, -1], allowed[1] = True, False
    bits = torch.zeros(7, -(-vocabulary // 32) * 32, dtype=torch.int64)
    bits[:, :vocabulary] = allowed
    words = (bits.view(7, -1, 32) << torch.arange(32)).sum(-1)
    board = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    board = board.pin_memory() if device.type == "cuda" else board  # a GPU reads it where it is
    rows, places = torch.tensor([4, 0, 2]), torch.tensor([6, 1, 3])
    expected = logits.clone()
    expected[rows] = torch.where(allowed[places], logits[rows], -torch.inf)
    changed = logits.to(device)
    apply_mask(changed, rows.to(device), board, places.to(device))
    assert torch.equal(changed.cpu(), expected)


@pytest.mark.parametrize(("apply_mask", "device"), PLACES)
def test_nothing_to_do_is_no_error(apply_mask, device) -> None:
    none = torch.zeros(0, dtype=torch.int64, device=device)
    apply_mask(torch.zeros(3, 50, device=device), none, torch.zeros(0, 2, dtype=torch.int32), none)
