"""What a run takes of a GPU for good, told from what other processes on it take meanwhile."""

from collections.abc import Callable

import torch

TIMES = 10


def assert_nothing_is_taken(run: Callable[[], object], slack: int = 0) -> None:
    """``run``, done again and again, leaves this process's tensors and the GPU's free memory as they are, but for ``slack`` bytes.

    Free memory is the whole GPU's: other processes take some, too, but seldom all the time. What ``run`` takes it takes every time.
    """
    torch.cuda.synchronize()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    taken: list[int] = []
    while not taken or (taken[-1] > slack and len(taken) < TIMES):
        free = torch.cuda.mem_get_info()[0]
        run()
        torch.cuda.synchronize()
        taken.append(free - torch.cuda.mem_get_info()[0])
        assert torch.cuda.memory_allocated() <= allocated + slack
        assert torch.cuda.memory_reserved() <= reserved + slack
    assert taken[-1] <= slack, f"bytes of the GPU that each run took: {taken}"
