"""How the twins read and write the paged cache: whole (page, head) tiles, or rows of them, by one index. Knows no attention.

The cache is seen as a list of tiles of page_size * D numbers each; its strides must be multiples of a tile, as they are in a pool.
Where a step reads and writes is the same for every layer, but for the layer's offset, and is computed once.
"""

from typing import NamedTuple

import torch

from octavo_kernels.reference.memo import of_last_call


class Layout(NamedTuple):
    """A cache as tiles: how many there are, how far it is from one page, side and head to the next, and a tile's shape."""

    num_tiles: int
    page: int
    side: int
    head: int
    num_kv_heads: int
    page_size: int
    head_dim: int

    @staticmethod
    def of(kv: torch.Tensor) -> "Layout":
        """The layout of ``kv`` [num_pages, 2, num_kv_heads, page_size, D]."""
        pages, _, heads, page_size, head_dim = kv.shape
        tile = page_size * head_dim
        page, side, head, _, _ = (stride // tile for stride in kv.stride())
        return Layout((pages - 1) * page + side + (heads - 1) * head + 1, page, side, head, heads, page_size, head_dim)


def gather(kv: torch.Tensor, page_table: torch.Tensor) -> torch.Tensor:
    """Keys and values of the pages in ``page_table`` [R, P], in order: [2, R, num_kv_heads, P * page_size, D], contiguous."""
    layout = Layout.of(kv)
    tile = layout.page_size * layout.head_dim
    tiles = kv.as_strided((layout.num_tiles, tile), (tile, 1))
    rows, width = page_table.shape
    shape = (2, rows, layout.num_kv_heads, width * layout.page_size, layout.head_dim)
    return tiles.index_select(0, _tiles_of_pages(page_table, layout)).view(shape)


def scatter(kv: torch.Tensor, slots: torch.Tensor, keys_values: torch.Tensor) -> None:
    """Write ``keys_values`` [T, 2 * num_kv_heads, D], keys first, to ``slots`` int64 [T]; slot -1 is left out."""
    layout = Layout.of(kv)
    index, kept = _rows_of_slots(slots, layout)
    if kept is not None:
        keys_values = keys_values[kept]
    rows = kv.as_strided((layout.num_tiles * layout.page_size, layout.head_dim), (layout.head_dim, 1))
    rows.index_copy_(0, index, keys_values.reshape(-1, layout.head_dim))


@of_last_call
def _tiles_of_pages(page_table: torch.Tensor, layout: Layout) -> torch.Tensor:
    corners = _corners(layout).view(2, 1, -1, 1)
    return (page_table[:, None].long() * layout.page + corners).view(-1)


@of_last_call
def _rows_of_slots(slots: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The rows of D numbers that tokens go to, and which tokens these are (None: all)."""
    kept = None
    if slots.numel() and int(slots.min()) < 0:
        kept = slots >= 0
        slots = slots[kept]
    tiles = (slots // layout.page_size * layout.page)[:, None] + _corners(layout)
    return (tiles * layout.page_size + (slots % layout.page_size)[:, None]).view(-1), kept


def _corners(layout: Layout) -> torch.Tensor:
    """The tiles of a page's keys and values, head by head, as seen from the page's first."""
    return (torch.arange(2)[:, None] * layout.side + torch.arange(layout.num_kv_heads) * layout.head).view(-1)
