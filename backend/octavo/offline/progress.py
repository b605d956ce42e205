"""``Progress``: vLLM's bar over the prompts of one call, with tokens per second. Shows nothing if nobody wants it."""

import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from octavo.text.generator import Generation

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress:
    """A context in which finished prompts are counted."""

    def __init__(self, total: int, wanted: "bool | Callable[..., tqdm]") -> None:
        """``wanted``: whether to show a bar, or what makes one from tqdm's arguments."""
        self._bar = _bar(total, wanted) if wanted else None
        self._input = self._output = 0

    def __enter__(self) -> "Progress":
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """The bar stays as it is."""
        if self._bar is not None:
            self._bar.close()

    def add(self, generation: Generation) -> None:
        """One prompt has been answered."""
        if self._bar is None:
            return
        self._input += generation.num_prompt_tokens
        self._output += generation.num_generation_tokens
        seconds = self._bar.format_dict["elapsed"] or 1e-9
        self._bar.set_postfix_str(
            f"est. speed input: {self._input / seconds:.2f} toks/s, output: {self._output / seconds:.2f} toks/s", refresh=False
        )
        self._bar.update()


def _bar(total: int, wanted: "bool | Callable[..., tqdm]") -> "tqdm":
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # in a notebook without ipywidgets the bar is text
        from tqdm.auto import tqdm

    make = wanted if callable(wanted) else tqdm
    return make(total=total, desc="Processed prompts", dynamic_ncols=True)
