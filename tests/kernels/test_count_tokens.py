"""count_tokens: each token in its own row, up to the largest count."""

import pytest
import torch

from octavo_kernels import for_device

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = [pytest.mark.gpu] if DEVICE.type == "cuda" else []
PLACES = [
    pytest.param(for_device(torch.device("cpu")).count_tokens, torch.device("cpu"), id="twin"),
    pytest.param(for_device(torch.device("cuda")).count_tokens, DEVICE, id="triton", marks=ON_GPU),
]


@pytest.mark.parametrize(("count_tokens", "device"), PLACES)
def test_drawn_tokens_are_counted_in_their_own_rows(count_tokens, device) -> None:
    seen = torch.zeros(300, 50, dtype=torch.int16)
    seen[7, 3], seen[8, 3] = 1, 32766
    rows, tokens = torch.zeros(200, dtype=torch.int32), torch.randint(50, (200,))
    rows[:2], tokens[:2] = torch.tensor([7, 8]), 3
    rows[2:] = torch.tensor([row for row in range(300) if row not in (7, 8)])[:198]
    expected = seen.clone()
    for row, token in zip(rows.tolist()[2:], tokens.tolist()[2:], strict=True):
        expected[row, token] += 2
    expected[7, 3] = 3
    counted = seen.to(device)
    count_tokens(counted, rows.to(device), tokens.to(device))
    assert torch.equal(counted.cpu(), expected)
