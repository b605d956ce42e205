"""``ModelRunner``: a loaded model on one device, one step at a time. Knows tensors and rows; no request, no queue and no socket."""

import logging

import numpy as np
import torch

from octavo.config import EngineConfig
from octavo.engine.messages import EngineInfo, TokenLogprobs
from octavo.engine.step import KVSpec, StepInput
from octavo.models.loader import load_model
from octavo.runtime.batch import build_batch
from octavo.runtime.courier import Courier
from octavo.runtime.device import prepare, resolve_device, resolve_page_size
from octavo.runtime.graphs import DecodeGraphs
from octavo.runtime.launched import Drawn, LaunchedStep
from octavo.runtime.logprobs import prompt_logprobs
from octavo.runtime.memory import GpuMemory, allocate_pool, cpu_budget, gpu_budget, pages_for, plan_pages
from octavo.runtime.penalties import PenaltyTable
from octavo.runtime.rehearsal import rehearse
from octavo.runtime.rows import SamplingTable
from octavo.runtime.sampler import Asked, Sampler
from octavo.runtime.state import RowState
from octavo_kernels import for_device

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
        prepare(device)
        free_before = _free_bytes(device)
        self._decoder = load_model(config, device)
        shape = self._decoder.shape
        max_model_len = self._decoder.max_len
        self.runs_ahead = 1 if device.type == "cuda" else 0
        self.kv_spec = KVSpec(page_size, shape.num_layers, shape.num_kv_heads, shape.head_dim, self._decoder.dtype.itemsize)
        self._kernels = for_device(device)
        self._courier = Courier(device)
        self._table = SamplingTable(config.max_num_seqs, shape.vocab_size)
        self._state = RowState(config.max_num_seqs, pages_for(max_model_len, self.kv_spec), self._courier, device)
        penalties = PenaltyTable(config.max_num_seqs, shape.vocab_size, self._kernels, self._courier, device)
        self._sampler = Sampler(self._table, penalties, self._courier)
        self._graphs = self._decode_graphs(config, device) if device.type == "cuda" else None
        budget, lever = self._budget(config, max_model_len, device, free_before)
        self.num_pages = plan_pages(budget, self.kv_spec, max_model_len, lever)
        self._take_cache(self.num_pages, device)
        if self._graphs is not None:
            self._graphs.bind(self._kv, trial=False)
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
        page_size = self.kv_spec.page_size
        return DecodeGraphs(self._decoder, self._kernels, self._table, self._state, self._courier, page_size, most, device)

    def _budget(self, config: EngineConfig, max_model_len: int, device: torch.device, free_before: int) -> tuple[int, str]:
        """Bytes for the KV cache, and the setting that would enlarge them."""
        graphs = self._graphs
        if graphs is None:
            return cpu_budget(config, self.kv_spec, max_model_len), "kv_cache_memory_bytes"
        self._take_cache(1, device)
        graphs.bind(self._kv, trial=True)  # before the rehearsal: a capture gives back what the steps outside of graphs have taken
        rehearse(lambda step: self.launch(step).wait(), config, max_model_len)
        free_after, total = torch.cuda.mem_get_info(device)
        lever = "gpu_memory_utilization" if config.kv_cache_memory_bytes is None else "kv_cache_memory_bytes"
        return gpu_budget(config, GpuMemory(total, free_before, free_after - graphs.reserve_bytes)), lever

    def _take_cache(self, num_pages: int, device: torch.device) -> None:
        pool = allocate_pool(num_pages, self.kv_spec, self._decoder.dtype, device)
        self._kv = [pool[:, layer] for layer in range(self.kv_spec.num_layers)]

    @torch.inference_mode()
    def launch(self, step: StepInput) -> LaunchedStep:
        """Have one step computed: keys and values of its tokens, and a new token for each row that has all of its own computed."""
        for start in step.starts:
            self._sampler.start(start)
        self._state.set_pages(step.pages)
        if self._graphs is not None and self._graphs.covers(step):
            return self._replay(self._graphs, step)
        return self._compute(step)

    def _replay(self, graphs: DecodeGraphs, step: StepInput) -> LaunchedStep:
        logits = graphs.forward(step)
        asked = self._sampler.edit(logits, step.rows, step.context_lens)
        return self._launched(step, np.arange(len(step.rows)), graphs.sample(step), asked, {})

    def _compute(self, step: StepInput) -> LaunchedStep:
        picks = np.flatnonzero(step.samples)
        batch = build_batch(step, picks, self._state, self.kv_spec.page_size, self._courier)
        hidden = self._decoder.forward(batch.token_ids, batch.attention, self._kv)
        scored = self._score_prompts(step, hidden) if self._table.prompts else {}
        if not len(picks):
            return LaunchedStep(len(step.rows), None, scored)
        logits = self._decoder.logits(hidden if batch.last is None else hidden[batch.last])
        rows = step.rows[picks]
        asked = self._sampler.edit(logits, rows, step.context_lens[picks])
        drawn = self._kernels.sample(logits, *self._courier.send(self._table.options(rows)), batch.positions)
        self._state.newest.index_copy_(0, batch.rows, drawn)
        return self._launched(step, picks, drawn, asked, scored)

    def _launched(
        self, step: StepInput, picks: np.ndarray, drawn: torch.Tensor, asked: Asked | None, scored: dict[int, list[TokenLogprobs]]
    ) -> LaunchedStep:
        self._sampler.count(step.rows[picks], drawn)
        return LaunchedStep(len(step.rows), Drawn.of(picks, drawn, asked, self._courier), scored)

    def _score_prompts(self, step: StepInput, hidden: torch.Tensor) -> dict[int, list[TokenLogprobs]]:
        """The prompt tokens that follow this step's positions, for rows that asked: position p scores the token at p + 1.

        A prompt that is scored to its end is forgotten.
        """
        scored = {}
        first_tokens = np.cumsum(step.query_lens) - step.query_lens
        for at, row in enumerate(step.rows.tolist()):
            wish = self._table.prompts.get(row)
            if wish is None:
                continue
            context, begin = int(step.context_lens[at]), int(first_tokens[at])
            targets = wish.token_ids[context - int(step.query_lens[at]) + 1 : context + 1].astype(np.int64)
            if len(targets):
                (there,) = self._courier.send([targets])
                before = hidden[begin : begin + len(targets)]
                scored[at] = prompt_logprobs(before, there, wish.rivals, self._decoder.logits, self.info.vocab_size)
            if context + 1 >= len(wish.token_ids):
                del self._table.prompts[row]
        return scored


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
