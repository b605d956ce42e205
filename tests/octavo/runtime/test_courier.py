"""What goes between the host and a GPU is what it was when it was sent, whatever is done to either side meanwhile."""

import numpy as np
import pytest
import torch

from octavo.runtime.courier import Courier
from octavo_kernels import for_device

pytestmark = pytest.mark.gpu


@pytest.fixture
def courier() -> Courier:
    return Courier(torch.device("cuda"))


def busy() -> None:
    """Give the GPU some milliseconds of work."""
    torch.cuda._sleep(10_000_000)


def test_what_is_fetched_is_what_was_there_though_it_is_overwritten(courier: Courier) -> None:
    tensor, waits = torch.zeros(1000, dtype=torch.int64, device="cuda"), []
    for turn in range(20):
        busy()
        courier.before_overwriting()
        tensor.fill_(turn)
        waits.append(courier.fetch(tensor))
        if turn % 3 == 2:
            assert (waits[turn - 1]() == turn - 1).all()
    courier.before_overwriting()
    tensor.fill_(-1)
    assert [set(wait().tolist()) for wait in waits] == [{turn} for turn in range(20)]


def test_fetches_may_be_waited_for_in_any_order_and_never(courier: Courier) -> None:
    def fetch(value: int) -> object:
        made = torch.full((100_000,), value, device="cuda")
        return courier.fetch(made)

    waits = []
    for turn in range(20):
        busy()
        waits.append(fetch(turn))
        torch.full((100_000,), -1, device="cuda")
    for turn in np.random.default_rng(0).permutation(20)[:15].tolist():
        assert set(waits[turn]().tolist()) == {turn}


def test_a_board_may_be_followed_by_another_while_a_kernel_is_yet_to_read_it(courier: Courier) -> None:
    """And a kernel reads what the host has written last, at the same place and again and again."""
    vocabulary, kernels = 128_256, for_device(torch.device("cuda"))
    row, place = (torch.tensor([0], device="cuda") for _ in range(2))
    results = []
    for size in (1, 64, 128, 64):
        board = np.zeros((size, vocabulary // 32), np.int32)
        for turn in range(20):
            board[0] = 1 << turn
            logits = torch.zeros(1, vocabulary, device="cuda")
            busy()
            kernels.apply_mask(logits, row, courier.share(board), place)
            results.append((turn, logits))
            if turn < 19:
                torch.cuda.synchronize()
    for turn, logits in results:
        allowed = logits.isfinite().nonzero()[:, 1]
        assert allowed.equal(torch.arange(turn, vocabulary, 32, device="cuda"))
