"""How the twins read the paged cache: whole (page, head) tiles, copied by one ``index_select``. Knows no attention."""

import torch


def gather(kv: torch.Tensor, page_table: torch.Tensor) -> torch.Tensor:
    """Keys and values of the pages in ``page_table`` [R, P], in order: [2, R, num_kv_heads, P * page_size, D], contiguous.

    The cache is seen as a list of tiles of page_size * D numbers; its strides must be multiples of a tile, as they are in a pool.
    """
    _, _, num_kv_heads, page_size, head_dim = kv.shape
    rows, width = page_table.shape
    tile = page_size * head_dim
    page, side, head = (stride // tile for stride in kv.stride()[:3])
    count = (kv.shape[0] - 1) * page + side + (num_kv_heads - 1) * head + 1
    tiles = kv.as_strided((count, tile), (tile, 1), kv.storage_offset())
    corners = torch.arange(2)[:, None, None, None] * side + torch.arange(num_kv_heads)[:, None] * head
    index = (page_table[:, None] * page).long() + corners
    return tiles.index_select(0, index.view(-1)).view(2, rows, num_kv_heads, width * page_size, head_dim)
