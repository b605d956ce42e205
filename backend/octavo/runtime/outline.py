"""``launch_everything``: the steps that an engine may come to, over tensors without memory. Knows launchers, no compiler.

Every launcher is called as it would be on a GPU, by the same code; whoever watches the launches learns all kernels of an engine.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from octavo.config import EngineConfig
from octavo.models.loader import load_outline
from octavo.runtime.courier import Courier
from octavo.runtime.padded_step import PaddedStep
from octavo.runtime.rehearsal import rehearsal
from octavo.runtime.shapes import Shapes
from octavo.runtime.steps import Steps
from octavo_kernels import for_device

META = torch.device("meta")


class ShapesOnly(Courier):
    """Takes shapes and dtypes to tensors without memory, and nothing back."""

    def __init__(self) -> None:
        """There is no device."""

    def send(self, arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """See ``Courier``."""
        return [torch.from_numpy(array).to(META) for array in arrays]

    def send_to(self, packed: torch.Tensor, arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """See ``Courier``."""
        return self.send(arrays)

    def fetch(self, tensor: torch.Tensor) -> Callable[[], np.ndarray]:
        """See ``Courier``; nobody waits."""
        return lambda: np.zeros(tensor.shape)


@torch.inference_mode()
def launch_everything(config: EngineConfig, page_size: int) -> None:
    """Call each launcher in every way in which an engine of ``config`` calls it on a GPU."""
    decoder, courier = load_outline(config), ShapesOnly()
    kernels = for_device(META, config.deterministic)
    steps = Steps(decoder, kernels, page_size, config.max_num_seqs, courier, META)
    steps.take_cache(1)
    del steps.kv[1:]
    for step in rehearsal(config, decoder.max_len, decoder.shape.vocab_size):
        steps.begin(step)
        steps.compute(step)
    shapes = Shapes(min(config.max_num_seqs, config.max_num_batched_tokens))
    every = [*shapes.decodes, *shapes.chunks]
    padded = PaddedStep(decoder, kernels, steps.table, steps.state, courier, page_size, every, META)
    for shape in every:
        control = padded.send(shape, padded.padding(shape))
        padded.forward(control, steps.kv)
        padded.sample(control)
