"""How the twins read the paged cache: whole (page, head) tiles, copied by one ``index_select``. Knows no attention."""

from functools import lru_cache

import torch


def gather(kv: torch.Tensor, page_table: torch.Tensor) -> torch.Tensor:
    """Keys and values of the pages in ``page_table`` [R, P], in order: [2, R, num_kv_heads, P * page_size, D], contiguous.

    The cache is seen as a list of tiles of page_size * D numbers; its strides must be multiples of a tile, as they are in a pool.
    """
    num_pages, _, num_kv_heads, page_size, head_dim = kv.shape
    rows, width = page_table.shape
    tile = page_size * head_dim
    page, side, head = (stride // tile for stride in kv.stride()[:3])
    count = (num_pages - 1) * page + side + (num_kv_heads - 1) * head + 1
    tiles = kv.as_strided((count, tile), (tile, 1))
    index = page_table[:, None] * page + _corners(side, head, num_kv_heads)
    return tiles.index_select(0, index.view(-1)).view(2, rows, num_kv_heads, width * page_size, head_dim)


@lru_cache(maxsize=64)
def _corners(side: int, head: int, num_kv_heads: int) -> torch.Tensor:
    """Where the tiles of a page lie from its first one: int32 [2, 1, num_kv_heads, 1]."""
    corners = torch.arange(2)[:, None] * side + torch.arange(num_kv_heads) * head
    return corners.int()[:, None, :, None]
