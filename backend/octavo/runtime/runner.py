"""``ModelRunner``: a loaded model on one device, one step at a time. Knows tensors and rows; no request, no queue and no socket."""

import logging
from contextlib import nullcontext

import torch

from octavo.config import EngineConfig
from octavo.engine.messages import EngineInfo
from octavo.engine.step import StepInput
from octavo.models.decoder import Decoder
from octavo.models.loader import load_model
from octavo.runtime.ahead import compiled_ahead, warn_of_compiles
from octavo.runtime.courier import Courier
from octavo.runtime.device import resolve_device, resolve_page_size, use_device
from octavo.runtime.graphs import StepGraphs
from octavo.runtime.launched import LaunchedStep
from octavo.runtime.memory import CPU_LEVER, GpuMemory, cpu_budget, gpu_budget, gpu_lever, plan_pages
from octavo.runtime.rehearsal import rehearsal
from octavo.runtime.steps import Steps
from octavo_kernels import Kernels, for_device
from octavo_kernels.cuda_driver import capability

log = logging.getLogger(__name__)


class ModelRunner:
    """Owns the weights, the KV cache and the rows' state of one engine.

    A step writes the keys and values of all its tokens, layer by layer, before any row of it reads them. A GPU is kept busy by a
    second step while the tokens of the first come back; on a CPU a launched step has been computed.
    """

    def __init__(self, config: EngineConfig) -> None:
        """Load the model and take the memory for its KV cache. Raises ``LoadFailed``."""
        device = resolve_device(config.device)
        page_size = resolve_page_size(config.block_size, device)
        on_gpu = device.type == "cuda"
        with compiled_ahead(config, page_size, capability(device.index)) if on_gpu else nullcontext():
            use_device(device)
            free_before = _free_bytes(device)
            decoder = load_model(config, device)
        kernels, courier = for_device(device, config.deterministic), Courier(device)
        self.runs_ahead = 1 if on_gpu else 0
        self._steps = Steps(decoder, kernels, page_size, config.max_num_seqs, courier, device)
        self.kv_spec = self._steps.kv_spec
        self._graphs = self._step_graphs(decoder, kernels, courier, config, device) if on_gpu else None
        budget, lever = self._budget(config, decoder, device, free_before)
        self.num_pages = plan_pages(budget, self.kv_spec, decoder.max_len, lever)
        self._steps.take_cache(self.num_pages)
        if self._graphs is not None:
            self._graphs.bind(self._steps.kv, trial=False)
            warn_of_compiles()
        self.info = EngineInfo(
            max_model_len=decoder.max_len,
            vocab_size=decoder.shape.vocab_size,
            page_size=page_size,
            num_pages=self.num_pages,
            dtype=str(decoder.weights_dtype).removeprefix("torch."),
            eos_token_ids=list(decoder.shape.eos_token_ids),
            weights_bytes=decoder.weights_bytes,
            max_logprobs=config.max_logprobs,
            device=str(device),
            device_bytes=torch.cuda.mem_get_info(device)[1] if on_gpu else 0,
        )
        cache = self.num_pages * self.kv_spec.bytes_per_page / 1e9
        log.info("%s on %s: %.2f GB of KV cache in %d pages of %d tokens", config.name, device, cache, self.num_pages, page_size)

    def _step_graphs(
        self, decoder: Decoder, kernels: Kernels, courier: Courier, config: EngineConfig, device: torch.device
    ) -> StepGraphs:
        """Nothing is captured yet."""
        most = min(config.max_num_seqs, config.max_num_batched_tokens)
        steps = self._steps
        return StepGraphs(decoder, kernels, steps.table, steps.state, courier, steps.kv_spec.page_size, most, device)

    def _budget(self, config: EngineConfig, decoder: Decoder, device: torch.device, free_before: int) -> tuple[int, str]:
        """Bytes for the KV cache, and the setting that would enlarge them."""
        graphs = self._graphs
        if graphs is None:
            return cpu_budget(config, self.kv_spec, decoder.max_len), CPU_LEVER
        self._steps.take_cache(1)
        # Before the rehearsal: it gives back what the steps outside of graphs have taken.
        graphs.bind(self._steps.kv, trial=True)
        for step, masks in rehearsal(config, decoder.max_len, decoder.shape.vocab_size):
            self._steps.begin(step)
            launched = self._steps.compute(step)
            launched.draw(masks)
            launched.wait()
        log.info("%s: all kernels have run", config.name)
        free_after, total = torch.cuda.mem_get_info(device)
        return gpu_budget(config, GpuMemory(total, free_before, free_after - graphs.reserve_bytes)), gpu_lever(config)

    @torch.inference_mode()
    def launch(self, step: StepInput) -> LaunchedStep:
        """Have one step computed: keys and values of its tokens, and logits for each row that has all of its own computed."""
        self._steps.begin(step)
        if self._graphs is not None and self._graphs.covers(step):
            return self._replay(self._graphs, step)
        return self._steps.compute(step)

    def warm_up(self) -> bool:
        """Capture the graphs of one more shape; False if there are all."""
        return self._graphs is not None and self._graphs.capture_one()

    def _replay(self, graphs: StepGraphs, step: StepInput) -> LaunchedStep:
        logits = graphs.forward(step)
        return LaunchedStep(len(step.rows), self._steps.drawing(step, logits, graphs.sample), {})


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
