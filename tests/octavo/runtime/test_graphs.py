"""Decode graphs: which size a step is padded to and that padding touches nothing; on a GPU, that a replay is the eager step."""

import gc
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineRequest
from octavo.engine.step import KVSpec, StepInput
from octavo.models.decoder import Decoder
from octavo.models.loader import load_model
from octavo.runtime.batch import build_batch
from octavo.runtime.courier import Courier
from octavo.runtime.graphs import DecodeGraphs, GraphSize, GraphSizes, batch_of, pad_decodes
from octavo.runtime.memory import allocate_pool
from octavo.runtime.runner import ModelRunner
from octavo.sampling import SamplingParams

CPU = torch.device("cpu")
gpu = [pytest.mark.gpu, pytest.mark.timeout(600)]


def decodes(contexts: list[int], tables: list[list[int]], token_ids: list[int], num_decodes: int | None = None) -> StepInput:
    """One step of a token a row, the first ``num_decodes`` of which (all of them) decode."""
    rows = len(contexts)
    page_table = np.zeros((rows, max(len(pages) for pages in tables)), np.int32)
    for row, pages in zip(page_table, tables, strict=True):
        row[: len(pages)] = pages
    return StepInput(
        [], np.arange(rows, dtype=np.int32), np.array(token_ids, np.int32), np.ones(rows, np.int32), np.array(contexts, np.int32),
        page_table, rows if num_decodes is None else num_decodes, np.ones(rows, np.bool_),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("max_rows", "rows"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (8, [1, 2, 4, 8]),
        (20, [1, 2, 4, 8, 16, 20]),
        (256, [1, 2, 4, *range(8, 257, 8)]),
        (1024, [1, 2, 4, *range(8, 257, 8)]),
    ],
)
def test_numbers_of_rows(max_rows: int, rows: list[int]) -> None:
    assert GraphSizes.up_to(max_rows, 1024, 64).rows == rows


@pytest.mark.parametrize(
    ("max_model_len", "page_size", "pages"),
    [(1000, 64, [16]), (8192, 64, [128]), (8193, 64, [128, 129]), (131_072, 64, [128, 512, 2048]), (40_000, 16, [512, 2048, 2500])],
)
def test_widths_of_page_tables(max_model_len: int, page_size: int, pages: list[int]) -> None:
    sizes = GraphSizes.up_to(4, max_model_len, page_size)
    assert sizes.pages == pages
    assert sizes.largest == (4, pages[-1])


@pytest.mark.parametrize(
    ("rows", "width", "size"),
    [
        (1, 1, (1, 4)),
        (3, 4, (4, 4)),
        (4, 5, (4, 16)),
        (5, 16, (8, 16)),
        (8, 1, (8, 4)),
        (9, 1, (12, 4)),
        (13, 1, None),
        (1, 17, None),
    ],
)
def test_a_step_is_padded_to_the_next_size(rows: int, width: int, size: tuple[int, int] | None) -> None:
    step = decodes([1] * rows, [[0] * width] * rows, [0] * rows)
    assert GraphSizes([1, 2, 4, 8, 12], [4, 16]).fitting(step) == size


def test_a_step_with_a_prompt_in_it_fits_no_graph() -> None:
    step = decodes([5, 1], [[0], [1]], [7, 8], num_decodes=1)
    assert GraphSizes([1, 2], [4]).fitting(step) is None


def test_padded_rows_have_no_context_and_no_slot() -> None:
    step = decodes([6, 4, 9], [[3, 9], [5], [1, 2, 7]], [11, 12, 13])
    arrays = pad_decodes(step, GraphSize(4, 5), 4)
    token_ids, positions, slots, contexts, page_table, context_lens, cu_query = arrays
    assert token_ids.tolist() == [11, 12, 13, 0]
    assert positions.tolist() == [5, 3, 8, 0]
    assert slots.tolist() == [9 * 4 + 1, 5 * 4 + 3, 7 * 4, -1]
    assert contexts.tolist() == context_lens.tolist() == [6, 4, 9, 0]
    assert page_table.tolist() == [[3, 9, 0, 0, 0], [5, 0, 0, 0, 0], [1, 2, 7, 0, 0], [0, 0, 0, 0, 0]]
    assert cu_query.tolist() == [0, 1, 2, 3, 4]
    assert [array.dtype for array in arrays] == [np.int64] * 4 + [np.int32] * 3
    assert all(array.flags.c_contiguous for array in arrays)


class Rows:
    """A decoder over a pool of random keys and values for rows of ``contexts`` tokens; all that is nobody's is ``spare``."""

    def __init__(self, decoder: Decoder, device: torch.device, page_size: int, contexts: list[int], spare: float) -> None:
        shape = decoder.shape
        self.decoder, self.device, self.page_size, self.contexts = decoder, device, page_size, contexts
        pages = [-(-context // page_size) for context in contexts]
        spec = KVSpec(page_size, shape.num_layers, shape.num_kv_heads, shape.head_dim, decoder.dtype.itemsize)
        torch.manual_seed(0)
        self.pool = allocate_pool(2 + sum(pages), spec, decoder.dtype, device)
        self.pool.normal_()
        self.pool[:2] = spare
        order = (2 + torch.randperm(sum(pages))).tolist()
        self.tables = [[order.pop() for _ in range(count)] for count in pages]
        for table, context in zip(self.tables, contexts, strict=True):
            self.pool[table[-1], :, :, :, (context - 1) % page_size + 1 :] = spare
        self._courier = Courier(device)
        self.kv = [self.pool[:, layer] for layer in range(shape.num_layers)]

    def step(self, rows: list[int], token: int) -> StepInput:
        return decodes([self.contexts[row] for row in rows], [self.tables[row] for row in rows], [token + 7 * row for row in rows])

    def eager(self, step: StepInput) -> torch.Tensor:
        batch = build_batch(step, self.page_size, self._courier)
        return self.decoder.logits(self.decoder.forward(batch.token_ids, batch.attention, self.kv)).clone()

    def touched(self, before: torch.Tensor) -> set[int]:
        """The slots that are not, bit for bit, what they were ``before``, the pool's bytes."""
        changed = (self.pool.view(torch.uint8) != before).any(-1).any(1).any(1).any(1)  # [page, token]
        return set(changed.flatten().nonzero().flatten().tolist())


def slots_of(step: StepInput, page_size: int) -> set[int]:
    last = step.context_lens - 1
    return set((step.page_table[np.arange(len(last)), last // page_size] * page_size + last % page_size).tolist())


def test_a_padded_step_computes_what_the_step_itself_does(tmp_path: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "torch_dtype": "float32",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    engine = EngineConfig(
        name="m", version=1, weights=str(tmp_path), weights_format=WeightsFormat.DUMMY, tokenizer="", dtype="float32"
    )
    cache = Rows(load_model(engine, CPU), CPU, 16, [1, 40, 17], spare=100.0)
    step = cache.step([0, 1, 2], 5)
    expected = cache.eager(step)
    before = cache.pool.view(torch.uint8).clone()
    tensors = Courier(CPU).send(pad_decodes(step, GraphSize(8, 8), cache.page_size))
    batch = batch_of(tensors)
    out = torch.full((8, 97), float("nan"))
    cache.decoder.logits(cache.decoder.forward(batch.token_ids, batch.attention, cache.kv), out)
    torch.testing.assert_close(out[:3], expected)
    assert batch.positions.tolist() == [1, 40, 17, 0, 0, 0, 0, 0]
    assert cache.touched(before) <= slots_of(step, cache.page_size)
    assert out.isfinite().all()


@pytest.fixture(scope="module")
def emptied() -> Iterator[None]:
    """What other modules' runners held is the GPU's again, before and after."""
    gc.collect()
    torch.cuda.empty_cache()
    yield
    gc.collect()
    torch.cuda.empty_cache()


SIZES = GraphSizes([1, 2, 4, 8, 16, 24], [4, 16])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"], scope="class")
class TestReplays:
    """``DecodeGraphs`` beside the same decoder without graphs."""

    pytestmark = gpu

    @pytest.fixture(scope="class")
    def cache(self, emptied: None, demo_config: Callable, dtype: str) -> Rows:
        device = torch.device("cuda", torch.cuda.current_device())
        decoder = load_model(demo_config(device="cuda", dtype=dtype), device)
        contexts = np.random.default_rng(1).integers(1, 1000, 24).tolist()
        contexts[:6] = [1, 64, 65, 1000, 128, 2]
        return Rows(decoder, device, 64, contexts, spare=float("nan"))

    @pytest.fixture
    def graphs(self, cache: Rows) -> DecodeGraphs:
        graphs = DecodeGraphs(cache.decoder, Courier(cache.device), SIZES, cache.page_size, cache.device)
        graphs.bind(cache.kv)
        return graphs

    def test_a_replay_computes_what_the_step_does_without_a_graph(self, cache: Rows, graphs: DecodeGraphs, dtype: str) -> None:
        """Sizes in any order, again after others, padded and not, with page tables of both widths.

        Over a cache of noise the model is no contraction: a padded batch, which cuBLAS sums in another order, moves single rows
        by 1e-3 in float32 and by anything in bfloat16, where only the typical row counts. Reading a wrong token moves all.
        """
        random = np.random.default_rng(2)
        short = [row for row, context in enumerate(cache.contexts) if context <= 256]
        errors = []
        for turn, count in enumerate([3, 1, 5, 24, 9, 2, 3, 8, 16, 1, 17, 4, 23, 3, 12, 5, 9]):
            choice = short if turn % 3 == 0 and count <= len(short) else range(24)
            step = cache.step(random.permutation(np.array(choice))[:count].tolist(), 10 + turn)
            expected = cache.eager(step)
            before = cache.pool.view(torch.uint8).clone()
            replayed = graphs.replay(step)
            assert replayed is not None
            logits, positions = replayed
            assert logits.shape == expected.shape
            assert positions.tolist() == step.context_lens.tolist()
            error = (logits - expected).norm(dim=-1) / expected.norm(dim=-1)
            errors += error.tolist()
            assert cache.touched(before) <= slots_of(step, cache.page_size)
        median, worst = np.median(errors), max(errors)
        print(f"\n{dtype}: relative error of a row's logits: median {median:.2e}, worst {worst:.2e}")
        assert median <= {"bfloat16": 2e-2, "float32": 1e-4}[dtype]
        assert dtype == "bfloat16" or worst <= 1e-2

    def test_nothing_is_taken_by_replaying(self, cache: Rows, graphs: DecodeGraphs) -> None:
        for count in range(1, 25):
            graphs.replay(cache.step(list(range(count)), 3))
        torch.cuda.synchronize()
        allocated, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
        for turn in range(200):
            graphs.replay(cache.step(list(range(1 + turn % 24)), turn))
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() <= allocated
        assert torch.cuda.mem_get_info()[0] >= free

    def test_what_a_graph_takes_and_gives(self, cache: Rows, graphs: DecodeGraphs, dtype: str) -> None:
        """Sizes that come up later take no more than was reserved for them; a replay is faster than the launches."""
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        for rows in [3], [3, 0], [3, 0, 1], range(5), range(12):
            graphs.replay(cache.step(list(rows), 3))
        torch.cuda.synchronize()
        taken = free - torch.cuda.mem_get_info()[0]
        one = cache.step([3], 5)
        replayed, eager = seconds(lambda: graphs.replay(one)), seconds(lambda: cache.eager(one))
        print(
            f"\n{dtype}: five later sizes took {taken / 2**20:.1f} MiB; a row: {replayed * 1e6:.0f} us, eager {eager * 1e6:.0f} us"
        )
        assert taken <= graphs.reserve_bytes
        assert replayed < eager / 2


def seconds(call: Callable[[], object]) -> float:
    """The shortest of ten calls, each waited for."""
    times = []
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


class TestEngine:
    """The whole engine on the demo model, in float32 so that graphs may not change a token."""

    pytestmark = gpu

    @pytest.fixture(scope="class")
    def config(self, emptied: None, demo_config: Callable) -> EngineConfig:
        return demo_config(device="cuda", dtype="float32", kv_cache_memory_bytes=2**30)

    @pytest.fixture(scope="class")
    def runner(self, config: EngineConfig) -> ModelRunner:
        return ModelRunner(config)

    @staticmethod
    def wishes(count: int) -> list[EngineRequest]:
        """Prompts and answers of many lengths, so that the batch shrinks step by step; some ask for more than greedy tokens."""
        random = np.random.default_rng(3)
        extras = [{}, {"logprobs": 2}, {"repetition_penalty": 1.2, "presence_penalty": 0.3}, {"logit_bias": {5: 2.0}}]
        return [
            EngineRequest(
                at,
                random.integers(10, 40_000, random.integers(1, 300)).tolist(),
                SamplingParams(temperature=0, max_tokens=20 + 9 * at, ignore_eos=True, **extras[at % 4]),
            )
            for at in range(count)
        ]

    def test_answers_are_the_same_with_and_without_graphs(
        self, config: EngineConfig, runner: ModelRunner, engine_type: type, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replays: list[object] = []
        replay = torch.cuda.CUDAGraph.replay
        monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(graph), replay(graph))[1])
        execute, alone = runner.execute, []
        monkeypatch.setattr(runner, "execute", lambda step: (alone.append(step.num_decodes == len(step.rows)), execute(step))[1])
        with_graphs = engine_type(config, runner, enable_prefix_caching=False).run(self.wishes(21))
        assert len(replays) == sum(alone) > 150
        assert len(set(map(id, replays))) >= 6
        monkeypatch.setattr(runner, "_graphs", None)
        without = engine_type(config, runner, enable_prefix_caching=False).run(self.wishes(21))
        assert len(replays) * 2 == sum(alone)
        for one, other in zip(with_graphs, without, strict=True):
            assert one.token_ids == other.token_ids
            assert [entry.token_ids for entry in one.logprobs] == [entry.token_ids for entry in other.logprobs]

    def test_memory_does_not_grow(self, config: EngineConfig, runner: ModelRunner, engine_type: type) -> None:
        engine = engine_type(config, runner, enable_prefix_caching=False)
        engine.run(self.wishes(21))
        torch.cuda.synchronize()
        allocated, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
        engine.run(self.wishes(21))
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() <= allocated + 2**20
        assert torch.cuda.mem_get_info()[0] >= free - 2**26
