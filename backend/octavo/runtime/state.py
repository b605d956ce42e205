"""``RowState``: what the device remembers of each row between steps: its page table and its newest token. Knows no model."""

import numpy as np
import torch

from octavo.runtime.courier import Courier


class RowState:
    """Tensors over rows ``0 .. max_rows``; the last one belongs to nobody, and padding may write there.

    ``page_tables``: int32 [max_rows + 1, P]. ``newest``: int64 [max_rows + 1], the token that was drawn last.
    """

    def __init__(self, max_rows: int, pages_per_row: int, courier: Courier, device: torch.device) -> None:
        """``pages_per_row``: the most pages that one row can hold."""
        self.page_tables = torch.zeros((max_rows + 1, pages_per_row), dtype=torch.int32, device=device)
        self.newest = torch.zeros(max_rows + 1, dtype=torch.int64, device=device)
        self.nobody = max_rows
        self._courier = courier

    def set_pages(self, changes: np.ndarray) -> None:
        """``changes``: int32 [K, 3], each a row, a place in its page table and a page; no place occurs twice."""
        if len(changes):
            row, place, page = self._courier.send([*changes.T.astype(np.int64)[:2], np.ascontiguousarray(changes[:, 2])])
            self.page_tables[row, place] = page
