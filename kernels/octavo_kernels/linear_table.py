"""Which tiling a projection takes by its shape: found with sweeps on an H200, then frozen. Knows no model.

The sweeps timed one projection at a time, back to back over many weights, with 1, 8, 32 and 64 rows of x and the shapes of four
models. Counts and shapes between those follow the same rules unmeasured.
"""

from octavo_kernels import gemv, skinny

_PROCESSORS = 132
_SHARED = 222 * 1024  # bytes of a multiprocessor's shared memory that rings of tiles may take
_MANY_ROWS = 16_384
GATED_ROWS = 1024  # of x from which gate and up with SwiGLU behind them are faster than the library and another kernel
_MOST_STAGES = 16
# By the rows and the width of the weight. Long rows want whole tiles; short kernels want all of the weight under way at once.
_ONE_ROW = {
    (6144, 4096): gemv.Tiling(4, 512, 2),
    (4096, 4096): gemv.Tiling(8, 1024, 4),
    (28672, 4096): gemv.Tiling(2, 4096, 8),
    (24576, 4096): gemv.Tiling(2, 4096, 8),
    (4096, 14336): gemv.Tiling(8, 1024, 4),
    (4096, 12288): gemv.Tiling(8, 1024, 4),
    (3072, 2048): gemv.Tiling(4, 1024, 4),
    (2048, 2048): gemv.Tiling(4, 2048, 8),
    (16384, 2048): gemv.Tiling(4, 2048, 8),
    (128256, 2048): gemv.Tiling(4, 2048, 8),
    (2048, 8192): gemv.Tiling(4, 2048, 8),
    (4096, 1024): gemv.Tiling(4, 1024, 4),
    (1024, 2048): gemv.Tiling(2, 2048, 8),
    (6144, 1024): gemv.Tiling(2, 1024, 2),
    (1024, 3072): gemv.Tiling(4, 1024, 8),
}


def gemv_tiling(rows: int, width: int) -> gemv.Tiling:
    """For one row of x and a weight [``rows``, ``width``]."""
    if (rows, width) in _ONE_ROW:
        return _ONE_ROW[rows, width]
    if rows >= _MANY_ROWS and width >= 2048:
        return gemv.Tiling(2, 2048, 8)
    return gemv.Tiling(4, 1024, 4)


def skinny_tiling(count: int, rows: int, width: int) -> skinny.Tiling | None:
    """For ``count`` rows of x and a weight [``rows``, ``width``]; None where the library is as fast."""
    if count > 64:
        return None
    if rows >= _MANY_ROWS:
        return _ring(count, width, 128, 1, 1, 1) if count > 32 and rows > 24_576 else _ring(count, width, 64, 1, 1, _fullest(rows))
    if count <= 16:
        return _up_to_16(count, rows, width)
    return _up_to_32(count, rows, width) if count <= 32 else _up_to_64(count, rows, width)


def _up_to_16(count: int, rows: int, width: int) -> skinny.Tiling:
    if rows <= 2048 and width >= 3072:
        return _ring(count, width, 16, 4, 1, 2)
    return _ring(count, width, 32, 2, 1, 1 if width > 8192 else 2)


def _up_to_32(count: int, rows: int, width: int) -> skinny.Tiling:
    if rows <= 1024:
        return _ring(count, width, 32, 2, 4, 1)
    if rows <= 4096 and width >= 4096:
        return _ring(count, width, 64, 1, 2 if rows > 2048 else 4, 1)
    return _ring(count, width, 64, 1, 1, 1)


def _up_to_64(count: int, rows: int, width: int) -> skinny.Tiling | None:
    if rows <= 2048 and width >= 3072:
        return _ring(count, width, 32, 2, 2 if rows > 1024 else 4, 1)
    if rows <= 4096 and width > 8192:
        return _ring(count, width, 64, 1, 2, 1)
    if rows <= 4096 and width >= 4096:
        return None
    return _ring(count, width, 64, 1, 1, 1)


def _fullest(rows: int) -> int:
    """How many programs of 64 rows each a multiprocessor should take at a time, so that the last wave is not almost empty."""

    def idle(programs: int) -> float:
        waves = rows / 64 / (_PROCESSORS * programs)
        return -(-waves // 1) / waves

    return min((2, 3), key=idle)


def _ring(count: int, width: int, rows: int, folds: int, splits: int, programs: int) -> skinny.Tiling:
    """Tiles of 128 along K, and as many stages as leave room for ``programs`` on a multiprocessor."""
    turn = 128 * folds
    stages = _SHARED // programs // ((rows + skinny.batch_of(count)) * turn * 2)
    return skinny.Tiling(rows, 128, folds, splits, min(stages, -(-width // turn), _MOST_STAGES))
