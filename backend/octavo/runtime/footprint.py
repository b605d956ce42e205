"""``gpu_footprint``: what an engine takes of a GPU beside weights and KV cache, found without one. Knows steps, no budget.

An engine measures this when it starts. Here the same steps run over tensors without memory, and what these would take is counted.
"""

import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from octavo.config import EngineConfig
from octavo.models.footprint import weights_bytes
from octavo.models.loader import Description
from octavo.runtime.memory import GRAPHS_BYTES
from octavo.runtime.outline import Outline

# Kernels' code, cuBLAS' workspaces and what the allocator rounds up: 0.2 to 0.7 GB on an H200 with models of 0.6B to 8B.
LIBRARY_BYTES = 448 * 2**20


def gpu_footprint(config: EngineConfig, model: Description, page_size: int) -> int:
    """Bytes that an engine of ``config``, described by ``model``, takes before it sizes its cache, less those of its weights.

    ``octavo_kernels.precompile.launch_nothing`` must hold in this process.
    """
    one_layer = weights_bytes(replace(model.shape, num_layers=1), model.precision)
    with torch.inference_mode(), _Tally() as tally:
        outline = Outline(config, page_size)
        state = tally.live - one_layer
        graphs = tally.peak_of(lambda: outline.capture(outline.shapes.largest))
        steps = tally.peak_of(outline.rehearse)
    # What is captured runs once before, on a stream of its own, whose memory no other stream uses.
    return state + 2 * graphs + steps + GRAPHS_BYTES * len(outline.shapes.every) + LIBRARY_BYTES


class _Tally(TorchDispatchMode):
    """Counts the bytes of all tensors that are made and not gone: ``live`` now, and the most during some work."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self._peak = 0
        self._known: dict[int, int] = {}

    def peak_of(self, work: Any) -> int:
        """The most that ``work`` holds at any time beside what there was before."""
        before = self._peak = self.live
        work()
        return self._peak - before

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Count what ``func`` makes; what it is given, and views of that, has been counted before."""
        self._note(tree_leaves((args, kwargs)), new=False)
        result = func(*args, **(kwargs or {}))
        self._note(tree_leaves(result), new=True)
        return result

    def _note(self, leaves: Iterable[object], new: bool) -> None:
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta":
                storage = leaf.untyped_storage()
                key = storage._cdata
                if key not in self._known:
                    self._known[key] = storage.nbytes() if new else 0
                    self.live += self._known[key]
                    self._peak = max(self._peak, self.live)
                    weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._known.pop(key)
