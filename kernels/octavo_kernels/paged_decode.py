"""Attention of one query per row over its pages, in Triton: split-KV, the heads of a group packed into one matrix. No scheduler.

Memory-bound: reads 2 * context * num_kv_heads * D numbers of cache per row, once. A row's tiles are shared out evenly among the
splits; a second small kernel merges rows that took more than one, by the log-sum-exp of each. The grid depends on shapes only,
lengths are read on the device, so a CUDA graph can hold the launch.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl

TILE = 64
_MIN_TILES = 4  # a split shorter than this costs more in merging than it gains
_MAX_SPLITS = 64
_LOG2_E = 1.4426950408889634


@triton.jit
def tile_offsets(table_ptr, start, length, page_stride, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, TILE: tl.constexpr):
    """Offsets (int64 [TILE]) of the tokens from ``start`` on in the cache, and which of them are below ``length``."""
    token = start + tl.arange(0, TILE)
    inside = token < length
    if PAGE % TILE == 0:
        page = tl.load(table_ptr + start // PAGE).to(tl.int64)
        offset = page * page_stride + ((start % PAGE) + tl.arange(0, TILE)) * HEAD_DIM
    else:
        page = tl.load(table_ptr + token // PAGE, inside, other=0).to(tl.int64)
        offset = page * page_stride + (token % PAGE) * HEAD_DIM
    return offset, inside


@triton.jit
def load_tile(ptr, offset, inside, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr):
    """A [TILE, BLOCK_D] tile of keys or values; with MASKED, tokens not ``inside`` come as zeros."""
    dim = tl.arange(0, BLOCK_D)
    at = ptr + offset[:, None] + dim[None, :]
    if MASKED:
        return tl.load(at, inside[:, None] & (dim < HEAD_DIM)[None, :], other=0)
    if HEAD_DIM == BLOCK_D:
        return tl.load(at)
    return tl.load(at, (dim < HEAD_DIM)[None, :], other=0)


@triton.jit
def fold(scores, values, acc, peak, mass):
    """One step of the online softmax (base 2) over a tile of ``scores`` [M, TILE] and ``values`` [TILE, D]."""
    new_peak = tl.maximum(peak, tl.max(scores, 1))
    weights = tl.exp2(scores - new_peak[:, None])
    decay = tl.exp2(peak - new_peak)
    mass = mass * decay + tl.sum(weights, 1)
    acc = tl.dot(weights.to(values.dtype), values, acc * decay[:, None], input_precision="ieee")
    return acc, new_peak, mass


@triton.jit
def _share(tiles, splits, MIN_TILES: tl.constexpr):
    """How many tiles each split takes, and how many splits have any (at least one)."""
    each = tl.maximum(tl.cdiv(tiles, splits), MIN_TILES)
    return each, tl.maximum(tl.cdiv(tiles, each), 1)


@triton.jit(do_not_specialize=["table_stride", "splits"])
def _decode_kernel(
    q_ptr, kv_ptr, table_ptr, lengths_ptr, out_ptr, partial_ptr, lse_ptr,
    q_stride, page_stride, side_stride, head_stride, table_stride, splits, scale,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, TILE: tl.constexpr, MIN_TILES: tl.constexpr,
):  # fmt: skip
    split, kv_head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    length = tl.load(lengths_ptr + row)
    tiles = tl.cdiv(length, TILE)
    each, used = _share(tiles, splits, MIN_TILES)
    if split >= used:
        return

    member = tl.arange(0, BLOCK_M)
    dim = tl.arange(0, BLOCK_D)
    packed = (member < GROUP)[:, None] & (dim < HEAD_DIM)[None, :]
    head = kv_head * GROUP + member
    q = tl.load(q_ptr + row * q_stride + head[:, None] * HEAD_DIM + dim[None, :], packed, other=0)
    keys_ptr = kv_ptr + kv_head * head_stride
    table_ptr += row * table_stride

    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    peak = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    whole = length // TILE
    last = tl.minimum((split + 1) * each, tiles)
    for tile in range(split * each, tl.minimum(last, whole)):
        offset, inside = tile_offsets(table_ptr, tile * TILE, length, page_stride, HEAD_DIM, PAGE, TILE)
        keys = load_tile(keys_ptr, offset, inside, HEAD_DIM, BLOCK_D, MASKED=False)
        scores = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale
        values = load_tile(keys_ptr + side_stride, offset, inside, HEAD_DIM, BLOCK_D, MASKED=False)
        acc, peak, mass = fold(scores, values, acc, peak, mass)
    if last > whole:
        offset, inside = tile_offsets(table_ptr, whole * TILE, length, page_stride, HEAD_DIM, PAGE, TILE)
        keys = load_tile(keys_ptr, offset, inside, HEAD_DIM, BLOCK_D, MASKED=True)
        scores = tl.where(inside[None, :], tl.dot(q, tl.trans(keys), input_precision="ieee") * scale, -float("inf"))
        values = load_tile(keys_ptr + side_stride, offset, inside, HEAD_DIM, BLOCK_D, MASKED=True)
        acc, peak, mass = fold(scores, values, acc, peak, mass)

    acc = acc / tl.where(mass > 0, mass, 1)[:, None]
    out_head = row * KV_HEADS * GROUP + head
    if used == 1:
        tl.store(out_ptr + out_head[:, None] * HEAD_DIM + dim[None, :], acc.to(out_ptr.dtype.element_ty), packed)
    else:
        part = out_head * splits + split
        tl.store(partial_ptr + part[:, None] * HEAD_DIM + dim[None, :], acc, packed)
        tl.store(lse_ptr + part, peak + tl.log2(mass), member < GROUP)


@triton.jit(do_not_specialize=["splits"])
def _merge_kernel(
    lengths_ptr, out_ptr, partial_ptr, lse_ptr, splits,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    TILE: tl.constexpr, MIN_TILES: tl.constexpr, MAX_SPLITS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    _, used = _share(tl.cdiv(tl.load(lengths_ptr + row), TILE), splits, MIN_TILES)
    if used == 1:
        return
    head = row * HEADS + tl.program_id(0)
    split = tl.arange(0, MAX_SPLITS)
    dim = tl.arange(0, BLOCK_D)
    lse = tl.load(lse_ptr + head * splits + split, split < used, other=-float("inf"))
    weights = tl.exp2(lse - tl.max(lse, 0))
    at = partial_ptr + (head * splits + split)[:, None] * HEAD_DIM + dim[None, :]
    partial = tl.load(at, (split < used)[:, None] & (dim < HEAD_DIM)[None, :], other=0)
    merged = tl.sum(partial * weights[:, None], 0) / tl.sum(weights, 0)
    tl.store(out_ptr + head * HEAD_DIM + dim, merged.to(out_ptr.dtype.element_ty), dim < HEAD_DIM)


@lru_cache
def _wave(device: torch.device) -> int:
    """How many programs of one wave to plan for: two for each multiprocessor (Triton's interpreter runs on a CPU: eight)."""
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8


def paged_decode(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, context_lens: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attend ``q`` [R, H, D] to the first ``context_lens[r]`` tokens of each row; returns [R, H, D].

    ``kv``: [num_pages, 2, num_kv_heads, page_size, D]. ``page_table``: int32 [R, P], a row's pages in order; entries behind the
    row's length are not read. ``context_lens``: int32 [R]; a row of length 0 gives zeros.
    """
    rows, heads, head_dim = q.shape
    _, _, kv_heads, page_size, _ = kv.shape
    out = torch.empty((rows, heads, head_dim), dtype=q.dtype, device=q.device)
    if not rows:
        return out
    splits = _splits(rows * kv_heads, page_table.shape[1] * page_size, _wave(q.device))
    parts = rows * heads * splits if splits > 1 else 0
    partial = torch.empty((parts, head_dim), dtype=torch.float32, device=q.device)
    lse = torch.empty(parts, dtype=torch.float32, device=q.device)
    group, block_d = heads // kv_heads, triton.next_power_of_2(head_dim)
    _decode_kernel[(splits, kv_heads, rows)](
        q, kv, page_table, context_lens, out, partial, lse,
        q.stride(0), *kv.stride()[:3], page_table.stride(0), splits, scale * _LOG2_E,
        KV_HEADS=kv_heads, GROUP=group, HEAD_DIM=head_dim, PAGE=page_size,
        BLOCK_M=max(16, triton.next_power_of_2(group)), BLOCK_D=block_d, TILE=TILE, MIN_TILES=_MIN_TILES,
        num_warps=4, num_stages=2 if block_d * q.element_size() > 256 else 3,
    )  # fmt: skip
    if splits > 1:
        _merge_kernel[(heads, rows)](
            context_lens, out, partial, lse, splits,
            HEADS=heads, HEAD_DIM=head_dim, BLOCK_D=block_d, TILE=TILE, MIN_TILES=_MIN_TILES, MAX_SPLITS=_MAX_SPLITS, num_warps=4,
        )  # fmt: skip
    return out


def _splits(programs: int, capacity: int, wave: int) -> int:
    """How many splits a row may take: enough to fill the device, or to keep one long row from holding everybody up."""
    most = min(triton.cdiv(capacity, TILE * _MIN_TILES), _MAX_SPLITS)
    return max(1, min(most, max(wave // programs, min(capacity // 8192, 16))))
