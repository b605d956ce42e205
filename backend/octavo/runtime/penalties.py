"""``PenaltyTable``: which tokens each row has seen, on the device, and what it makes them cost. Knows rows, no request.

The definitions are vLLM's: repetition counts prompt and answer, presence and frequency count the answer only.
"""

import numpy as np
import torch

from octavo.engine.step import RowStart
from octavo.runtime.courier import Courier
from octavo_kernels import Kernels


class PenaltyTable:
    """State over rows ``0 .. max_rows``, see ``penalise``. What no row asks for costs nothing."""

    def __init__(self, max_rows: int, vocab_size: int, kernels: Kernels, courier: Courier, device: torch.device) -> None:
        """Two bytes for every row and token; on a CPU the system gives memory only to what is written."""
        self._kernels = kernels
        self._courier = courier
        self._coefficients = np.tile(np.array([1, 0, 0], np.float32), (max_rows + 1, 1))
        self._penalised = np.zeros(max_rows + 1, np.bool_)
        shape = (max_rows + 1, vocab_size)
        if device.type == "cpu":
            self._seen = torch.from_numpy(np.zeros(shape, np.int16))
        else:
            self._seen = torch.zeros(shape, dtype=torch.int16, device=device)

    def start(self, start: RowStart) -> None:
        """Set up one row."""
        sampling, row = start.sampling, start.row
        self._penalised[row] = sampling.penalised
        if sampling.penalised:
            self._coefficients[row] = sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty
            prompt, answer = start.token_ids[: start.num_prompt_tokens], start.token_ids[start.num_prompt_tokens :]
            seen = 2 * np.bincount(answer, minlength=self._seen.shape[1])
            seen[prompt] += 1
            (there,) = self._courier.send([seen.astype(np.int16)])
            self._seen[row] = there

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The places in ``rows`` (int64 [S]) that are penalised."""
        return self._penalised[rows].nonzero()[0]

    def apply(self, logits: torch.Tensor, rows: np.ndarray) -> None:
        """Change ``logits`` (float32 [S, V]), one row for each of ``rows`` (int64 [S])."""
        coefficients = np.where(self._penalised[rows, None], self._coefficients[rows], np.array([1, 0, 0], np.float32))
        there, *columns = self._courier.send([rows, *np.ascontiguousarray(coefficients.T)])
        self._kernels.penalise(logits, self._seen, there, *columns)

    def count(self, rows: np.ndarray, places: np.ndarray, tokens: torch.Tensor) -> None:
        """The answers of ``rows[places]`` go on with ``tokens[places]`` (int64 [S])."""
        there, mine = self._courier.send([rows[places], places])
        self._kernels.count_tokens(self._seen, there, tokens[mine])
