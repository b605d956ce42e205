"""penalise: against the definitions, token by token."""

import pytest
import torch

from octavo_kernels import for_device

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = [pytest.mark.gpu] if DEVICE.type == "cuda" else []
PLACES = [
    pytest.param(for_device(torch.device("cpu")).penalise, torch.device("cpu"), id="twin"),
    pytest.param(for_device(torch.device("cuda")).penalise, DEVICE, id="triton", marks=ON_GPU),
]
COEFFICIENTS = torch.tensor(
    [[1.3, 0.0, 0.0], [0.7, -0.5, 0.25], [1.0, 0.0, 0.0], [1.0, 0.8, 0.0], [1.0, 0.0, -1.5], [1.5, 1.0, 1.0]]
)


def packed(prompt, answer, vocabulary):
    """One row of ``seen``."""
    seen = torch.zeros(vocabulary, dtype=torch.int16)
    seen[prompt] = 1
    return seen + 2 * answer.bincount(minlength=vocabulary).to(torch.int16)


@pytest.mark.parametrize(("penalise", "device"), PLACES)
@pytest.mark.parametrize("vocabulary", [60, 9001])
def test_penalties_are_those_of_the_definition(penalise, device, vocabulary) -> None:
    rows = torch.tensor([4, 2, 7, 0, 5, 1], dtype=torch.int32)
    logits = torch.randn(len(rows), vocabulary)
    seen = torch.full((8, vocabulary), 32767, dtype=torch.int16)
    expected = logits.double().clone()
    for place, row in enumerate(rows.tolist()):
        prompt, answer = torch.randint(vocabulary, (20,)), torch.randint(vocabulary, (30,)) % 17
        seen[row] = packed(prompt, answer, vocabulary)
        repetition, presence, frequency = COEFFICIENTS[place].tolist()
        for token in {*prompt.tolist(), *answer.tolist()}:
            logit, count = expected[place, token], int((answer == token).sum())
            logit = logit / repetition if logit > 0 else logit * repetition
            expected[place, token] = logit - frequency * count - presence * (count > 0)
    changed = logits.to(device)
    penalise(changed, seen.to(device), rows.to(device), *COEFFICIENTS.T.contiguous().to(device))
    torch.testing.assert_close(changed.cpu().double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(changed.cpu()[2], logits[2])


@pytest.mark.parametrize(("penalise", "device"), PLACES)
def test_nothing_to_do_is_no_error(penalise, device) -> None:
    rows, seen = torch.zeros(0, dtype=torch.int32, device=device), torch.zeros(4, 50, dtype=torch.int16, device=device)
    penalise(torch.zeros(0, 50, device=device), seen, rows, *torch.zeros(3, 0, device=device))
