"""``launch_everything``: the steps that an engine may come to, over tensors without memory. Knows launchers, no compiler.

Every launcher is called as it would be on a GPU, by the same code; whoever watches the launches learns all kernels of an engine.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from octavo.config import EngineConfig
from octavo.models.loader import load_outline
from octavo.runtime.courier import Courier
from octavo.runtime.padded_step import PaddedStep
from octavo.runtime.rehearsal import rehearsal
from octavo.runtime.shapes import Shape, Shapes
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

    def share(self, board: np.ndarray) -> torch.Tensor:
        """See ``Courier``."""
        return torch.from_numpy(board).to(META)

    def fetch(self, tensor: torch.Tensor) -> Callable[[], np.ndarray]:
        """See ``Courier``; nobody waits."""
        return lambda: np.zeros(tensor.shape)


class Outline:
    """An engine of ``config`` as it would be on a GPU, but with one layer."""

    def __init__(self, config: EngineConfig, page_size: int) -> None:
        """Nothing is launched yet."""
        self._config, courier = config, ShapesOnly()
        self.decoder, kernels = load_outline(config), for_device(META, config.deterministic)
        self.steps = Steps(self.decoder, kernels, page_size, config.max_num_seqs, courier, META)
        self.steps.take_cache(1)
        del self.steps.kv[1:]
        self.shapes = Shapes(min(config.max_num_seqs, config.max_num_batched_tokens))
        table, state, every = self.steps.table, self.steps.state, self.shapes.every
        self._padded = PaddedStep(self.decoder, kernels, table, state, courier, page_size, every, META)

    @torch.inference_mode()
    def rehearse(self) -> None:
        """Compute the steps that an engine computes before it is ready."""
        for step, masks in rehearsal(self._config, self.decoder.max_len, self.decoder.shape.vocab_size):
            self.steps.begin(step)
            self.steps.compute(step).draw(masks)

    @torch.inference_mode()
    def capture(self, shapes: Iterable[Shape]) -> None:
        """Compute the steps that are captured for graphs of ``shapes``."""
        for shape in shapes:
            control = self._padded.send(self._padded.control(shape))
            self._padded.forward(control, self.steps.kv)
            self._padded.sample(control)


def launch_everything(config: EngineConfig, page_size: int) -> None:
    """Call each launcher in every way in which an engine of ``config`` calls it on a GPU."""
    outline = Outline(config, page_size)
    outline.rehearse()
    outline.capture(outline.shapes.every)
