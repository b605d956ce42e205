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
@pytest.mark.parametrize("vocabulary", [31, 64, 9001])
def test_what_is_not_allowed_cannot_be_drawn_and_all_else_stays(apply_mask, device, vocabulary) -> None:
    logits = torch.randn(5, vocabulary)
    allowed = torch.rand(3, vocabulary) < 0.3
    allowed[0, -1], allowed[1] = True, False
    bits = torch.zeros(3, -(-vocabulary // 32) * 32, dtype=torch.int64)
    bits[:, :vocabulary] = allowed
    words = (bits.view(3, -1, 32) << torch.arange(32)).sum(-1)
    mask = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    places = torch.tensor([4, 0, 2])
    expected = logits.clone()
    expected[places] = torch.where(allowed, logits[places], -torch.inf)
    changed = logits.to(device)
    apply_mask(changed, places.to(device), mask.to(device))
    assert torch.equal(changed.cpu(), expected)


@pytest.mark.parametrize(("apply_mask", "device"), PLACES)
def test_nothing_to_do_is_no_error(apply_mask, device) -> None:
    places, mask = torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(0, 2, dtype=torch.int32, device=device)
    apply_mask(torch.zeros(3, 50, device=device), places, mask)
