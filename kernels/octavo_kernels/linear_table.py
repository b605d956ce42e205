"""Which tiling a projection takes by its shape: found with sweeps on an H200, then frozen. Knows no model."""

from octavo_kernels import gemv, skinny

_SHARED = 222 * 1024  # bytes of a multiprocessor's shared memory that rings of tiles may take
_MANY_ROWS = 16_384


def gemv_tiling(rows: int, width: int) -> gemv.Tiling:
    """For one row of x and a weight [``rows``, ``width``]."""
    if width >= 2048 and rows >= _MANY_ROWS:
        return gemv.Tiling(2, 2048, 8)
    return gemv.Tiling(4, 1024, 4)


def skinny_tiling(count: int, rows: int, width: int) -> skinny.Tiling | None:
    """For ``count`` rows of x and a weight [``rows``, ``width``]; None where the library is as fast."""
    if count > 64:
        return None
    if rows >= _MANY_ROWS:
        return _with_ring(count, 64, 128, 1, 1, 2)
    if count > 16:
        return _with_ring(count, 64, 128, 1, 1, 1)
    if rows > 4096:
        return _with_ring(count, 64, 128, 1, 1, 1)
    return _with_ring(count, 32, 128, 2, 1, 1)


def _with_ring(count: int, rows: int, width: int, folds: int, splits: int, programs: int) -> skinny.Tiling:
    """As many stages as leave room for ``programs`` on a multiprocessor."""
    turn = (rows + skinny.batch_of(count)) * folds * width * 2
    return skinny.Tiling(rows, width, folds, splits, min(_SHARED // programs // turn, 16))
