"""``ModelRunner``: a loaded model on one device, one step at a time. Knows tensors and rows; no request, no queue and no socket."""

import logging

import numpy as np
import torch

from octavo.config import EngineConfig
from octavo.engine.messages import EngineInfo, TokenLogprobs
from octavo.engine.step import KVSpec, StepInput, StepOutput
from octavo.models.loader import load_model
from octavo.runtime.batch import build_batch
from octavo.runtime.courier import Courier
from octavo.runtime.device import prepare, resolve_device, resolve_page_size
from octavo.runtime.graphs import DecodeGraphs, GraphSizes
from octavo.runtime.logprobs import prompt_logprobs
from octavo.runtime.memory import GpuMemory, allocate_pool, cpu_budget, gpu_budget, plan_pages
from octavo.runtime.rehearsal import rehearse
from octavo.runtime.rows import RowTable
from octavo.runtime.sampler import Sampler
from octavo_kernels import for_device

log = logging.getLogger(__name__)


class ModelRunner:
    """Owns the weights, the KV cache and the rows' sampling state of one engine.

    A step writes the keys and values of all its tokens, layer by layer, before any row of it reads them.
    """

    def __init__(self, config: EngineConfig) -> None:
        """Load the model and take the memory for its KV cache. Raises ``LoadFailed``."""
        device = resolve_device(config.device)
        page_size = resolve_page_size(config.block_size, device)
        prepare(device)
        free_before = _free_bytes(device)
        self._decoder = load_model(config, device)
        shape = self._decoder.shape
        max_model_len = self._decoder.max_len
        self.kv_spec = KVSpec(page_size, shape.num_layers, shape.num_kv_heads, shape.head_dim, self._decoder.dtype.itemsize)
        self._courier = Courier(device)
        self._rows = RowTable(config.max_num_seqs, shape.vocab_size)
        self._sampler = Sampler(for_device(device), self._rows, self._courier)
        self._graphs: DecodeGraphs | None = None
        graphs = self._decode_graphs(config, device) if device.type == "cuda" else None
        budget, lever = self._budget(config, max_model_len, device, free_before, graphs)
        self.num_pages = plan_pages(budget, self.kv_spec, max_model_len, lever)
        self._take_cache(self.num_pages, device)
        if graphs is not None:
            graphs.bind(self._kv)
            self._graphs = graphs
        self.info = EngineInfo(
            max_model_len=max_model_len,
            vocab_size=shape.vocab_size,
            page_size=self.kv_spec.page_size,
            num_pages=self.num_pages,
            dtype=str(self._decoder.weights_dtype).removeprefix("torch."),
            eos_token_ids=list(shape.eos_token_ids),
            weights_bytes=self._decoder.weights_bytes,
            max_logprobs=config.max_logprobs,
        )
        cache = self.num_pages * self.kv_spec.bytes_per_page / 1e9
        log.info("%s on %s: %.2f GB of KV cache in %d pages of %d tokens", config.name, device, cache, self.num_pages, page_size)

    def _decode_graphs(self, config: EngineConfig, device: torch.device) -> DecodeGraphs:
        """Nothing is captured yet."""
        most = min(config.max_num_seqs, config.max_num_batched_tokens)
        sizes = GraphSizes.up_to(most, self._decoder.max_len, self.kv_spec.page_size)
        return DecodeGraphs(self._decoder, self._courier, sizes, self.kv_spec.page_size, device)

    def _budget(
        self, config: EngineConfig, max_model_len: int, device: torch.device, free_before: int, graphs: DecodeGraphs | None
    ) -> tuple[int, str]:
        """Bytes for the KV cache, and the setting that would enlarge them."""
        if graphs is None:
            return cpu_budget(config, self.kv_spec, max_model_len), "kv_cache_memory_bytes"
        self._take_cache(1, device)
        graphs.bind(self._kv)  # before the rehearsal: a capture gives back what the steps outside of graphs have taken
        rehearse(self.execute, config, self.kv_spec.page_size, max_model_len)
        free_after, total = torch.cuda.mem_get_info(device)
        lever = "gpu_memory_utilization" if config.kv_cache_memory_bytes is None else "kv_cache_memory_bytes"
        return gpu_budget(config, GpuMemory(total, free_before, free_after - graphs.reserve_bytes)), lever

    def _take_cache(self, num_pages: int, device: torch.device) -> None:
        pool = allocate_pool(num_pages, self.kv_spec, self._decoder.dtype, device)
        self._kv = [pool[:, layer] for layer in range(self.kv_spec.num_layers)]

    @torch.inference_mode()
    def execute(self, step: StepInput) -> StepOutput:
        """Compute one step: keys and values of its tokens, and a new token for each row that has all of its own computed."""
        for start in step.starts:
            self._rows.start(start)
        replayed = None if self._graphs is None else self._graphs.replay(step)
        if replayed is not None:
            logits, positions = replayed
            return self._sample(step, np.arange(len(step.rows)), logits, positions, {})
        batch = build_batch(step, self.kv_spec.page_size, self._courier)
        hidden = self._decoder.forward(batch.token_ids, batch.attention, self._kv)
        scored = self._score_prompts(step, hidden) if self._rows.prompts else {}
        if not len(batch.picks):
            return StepOutput([[] for _ in step.rows], {}, scored)
        logits = self._decoder.logits(hidden if batch.last is None else hidden[batch.last])
        return self._sample(step, batch.picks, logits, batch.positions, scored)

    def _sample(
        self,
        step: StepInput,
        picks: np.ndarray,
        logits: torch.Tensor,
        positions: torch.Tensor,
        scored: dict[int, list[TokenLogprobs]],
    ) -> StepOutput:
        """Draw a token for each of ``picks``, places in ``step.rows``, from its row of ``logits``."""
        sampled, logprobs = self._sampler.sample(logits, step.rows[picks], step.context_lens[picks], positions)
        tokens: list[list[int]] = [[] for _ in step.rows]
        for at, token in zip(picks.tolist(), sampled, strict=True):
            tokens[at].append(token)
        return StepOutput(tokens, {int(picks[at]): [entry] for at, entry in logprobs.items()}, scored)

    def _score_prompts(self, step: StepInput, hidden: torch.Tensor) -> dict[int, list[TokenLogprobs]]:
        """The prompt tokens that follow this step's positions, for rows that asked: position p scores the token at p + 1.

        A prompt that is scored to its end is forgotten.
        """
        scored = {}
        first_tokens = np.cumsum(step.query_lens) - step.query_lens
        for at, row in enumerate(step.rows.tolist()):
            wish = self._rows.prompts.get(row)
            if wish is None:
                continue
            context, begin = int(step.context_lens[at]), int(first_tokens[at])
            targets = wish.token_ids[context - int(step.query_lens[at]) + 1 : context + 1].astype(np.int64)
            if len(targets):
                (there,) = self._courier.send([targets])
                before = hidden[begin : begin + len(targets)]
                scored[at] = prompt_logprobs(before, there, wish.rivals, self._decoder.logits, self.info.vocab_size)
            if context + 1 >= len(wish.token_ids):
                del self._rows.prompts[row]
        return scored


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
