"""Graphs of padded steps: that padding changes and touches nothing; on a GPU, that a replay is the eager step."""

import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineRequest
from octavo.engine.step import KVSpec, RowStart, StepInput
from octavo.models.decoder import Decoder
from octavo.models.loader import load_model
from octavo.runtime.batch import build_batch
from octavo.runtime.courier import Courier
from octavo.runtime.graphs import StepGraphs
from octavo.runtime.memory import allocate_pool
from octavo.runtime.padded_step import PaddedStep
from octavo.runtime.rows import SamplingTable
from octavo.runtime.runner import ModelRunner
from octavo.runtime.shapes import Shape
from octavo.runtime.state import RowState
from octavo.sampling import SamplingParams
from octavo_kernels import for_device

from .device_memory import assert_nothing_is_taken

CPU = torch.device("cpu")
MAX_ROWS = 24
gpu = [pytest.mark.gpu, pytest.mark.timeout(600)]


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
        self.kv = [self.pool[:, layer] for layer in range(shape.num_layers)]
        self.courier = Courier(device)
        self.state = RowState(len(contexts), max(pages), self.courier, device)
        changes = [(row, place, page) for row, table in enumerate(self.tables) for place, page in enumerate(table)]
        self.state.set_pages(np.array(changes, np.int32))

    def step(self, rows: list[int], token: int, chunks: Sequence[tuple[int, int, bool]] = ()) -> StepInput:
        """A step in which each of ``rows`` decodes its last token, which is a different one for each of them.

        ``chunks``: row, how many of its last tokens are computed, and whether it yields a token.
        """
        mine = np.array([*rows, *(row for row, _, _ in chunks)], np.int64)
        self.state.newest[mine] = torch.from_numpy(token + 7 * mine).to(self.device)
        contexts = np.array(self.contexts)[mine]
        lens = np.array([*[1] * len(rows), *(count for _, count, _ in chunks)])
        samples = np.array([*[True] * len(rows), *(yields for _, _, yields in chunks)])
        token_ids = (token + 3 * np.arange(lens[len(rows) :].sum(), dtype=np.int32)) % self.decoder.shape.vocab_size
        pages = np.zeros((0, 3), np.int32)
        return StepInput([], pages, mine, token_ids, lens, contexts, len(rows), samples)

    def eager(self, step: StepInput) -> torch.Tensor:
        """The logits of the rows that yield a token."""
        batch = build_batch(step, np.flatnonzero(step.samples), self.state, self.page_size, self.courier)
        hidden = self.decoder.forward(batch.token_ids, batch.attention, self.kv)
        return self.decoder.logits(hidden if batch.last is None else hidden[batch.last]).clone()

    def touched(self, before: torch.Tensor) -> set[int]:
        """The slots that are not, bit for bit, what they were ``before``, the pool's bytes."""
        changed = (self.pool.view(torch.uint8) != before).any(-1).any(1).any(1).any(1)  # [page, token]
        return set(changed.flatten().nonzero().flatten().tolist())

    def slots(self, step: StepInput) -> set[int]:
        """Those of the step's tokens."""
        size, slots = self.page_size, set()
        for row, context, count in zip(step.rows.tolist(), step.context_lens.tolist(), step.query_lens.tolist(), strict=True):
            slots |= {self.tables[row][at // size] * size + at % size for at in range(context - count, context)}
        return slots


class OnCpu(Courier):
    """Padded steps are for a GPU; here they share the arrays' memory."""

    def send_to(self, packed: torch.Tensor, arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
        return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize(
    ("rows", "chunks", "shape"),
    [
        ([0, 1, 2], [], Shape(8)),
        ([2, 0], [(1, 40, True)], Shape(8, 4, 64)),  # a whole prompt
        ([0, 1, 2], [(4, 21, True), (3, 5, True)], Shape(8, 4, 64)),  # the rest of one, behind what the cache holds
        ([2], [(1, 3, True), (3, 1, True), (4, 20, False)], Shape(4, 3, 24)),  # nothing but the decodes is padded
        ([], [(3, 30, True)], Shape(1, 2, 64)),
    ],
)
def test_a_padded_step_computes_what_the_step_itself_does(
    tmp_path: Path, rows: list[int], chunks: list[tuple[int, int, bool]], shape: Shape
) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "torch_dtype": "float32",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    engine = EngineConfig(
        name="m", version=1, weights=str(tmp_path), weights_format=WeightsFormat.DUMMY, tokenizer="", dtype="float32"
    )
    cache = Rows(load_model(engine, CPU), CPU, 16, [1, 40, 17, 33, 100], spare=100.0)
    step = cache.step(rows, 5, chunks)
    expected = cache.eager(step)
    before, newest = cache.pool.view(torch.uint8).clone(), cache.state.newest.clone()
    table = SamplingTable(5, 97)
    padded = PaddedStep(cache.decoder, for_device(CPU), table, cache.state, OnCpu(CPU), cache.page_size, [shape], CPU)
    padded.logits.fill_(float("nan"))
    control = padded.send(padded.control(shape, step))
    padded.forward(control, cache.kv)
    torch.testing.assert_close(padded.logits[padded.drawing(step, shape)], expected)
    assert cache.touched(before) <= cache.slots(step)
    assert padded.logits.isfinite().all()
    padded.sample(control)
    newest[step.rows[step.samples]] = expected.argmax(-1)
    assert padded.drawn[padded.drawing(step, shape)].equal(expected.argmax(-1))
    assert cache.state.newest[:-1].equal(newest[:-1])


@pytest.fixture(scope="module")
def emptied() -> Iterator[None]:
    """What other modules' runners held is the GPU's again, before and after."""
    gc.collect()
    torch.cuda.empty_cache()
    yield
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"], scope="class")
class TestReplays:
    """``StepGraphs`` beside the same decoder without graphs."""

    pytestmark = gpu

    @pytest.fixture(scope="class")
    def cache(self, emptied: None, demo_config: Callable, dtype: str) -> Rows:
        device = torch.device("cuda", torch.cuda.current_device())
        decoder = load_model(demo_config(device="cuda", dtype=dtype), device)
        contexts = np.random.default_rng(1).integers(1, 1000, MAX_ROWS).tolist()
        contexts[:6] = [1, 64, 65, 1000, 128, 2]
        return Rows(decoder, device, 64, contexts, spare=float("nan"))

    @pytest.fixture
    def graphs(self, cache: Rows) -> StepGraphs:
        table = SamplingTable(MAX_ROWS, cache.decoder.shape.vocab_size)
        graphs = StepGraphs(
            cache.decoder, for_device(cache.device), table, cache.state, cache.courier, cache.page_size, MAX_ROWS, cache.device
        )
        graphs.bind(cache.kv, trial=False)
        return graphs

    def test_a_replay_computes_what_the_step_does_without_a_graph(self, cache: Rows, graphs: StepGraphs, dtype: str) -> None:
        """Shapes in any order, again after others, padded and not, every third time with chunks.

        Over a cache of noise the model is no contraction: a padded batch, which is summed in another order, moves single rows
        by 1e-3 in float32 and by anything in bfloat16, where only the typical row counts. Reading a wrong token moves all.
        """
        random = np.random.default_rng(2)
        errors = []
        for turn, count in enumerate([3, 1, 5, 24, 9, 2, 3, 8, 16, 1, 17, 4, 23, 3, 12, 5, 9]):
            rows = random.permutation(MAX_ROWS).tolist()
            chunks = [(row, min(cache.contexts[row], 120), row != rows[-1]) for row in rows[-4 : -1 if turn % 2 else None]]
            step = cache.step(rows[: min(count, 20)], 10 + turn, chunks if turn % 3 == 0 else ())
            assert graphs.covers(step)
            expected = cache.eager(step)
            before = cache.pool.view(torch.uint8).clone()
            logits = graphs.forward(step)
            assert logits.shape == expected.shape
            error = (logits - expected).norm(dim=-1) / expected.norm(dim=-1)
            errors += error.tolist()
            assert cache.touched(before) <= cache.slots(step)
            best = logits.argmax(-1)
            assert graphs.sample().equal(best)
            assert cache.state.newest[step.rows[step.samples]].equal(best)
        median, worst = np.median(errors), max(errors)
        print(f"\n{dtype}: relative error of a row's logits: median {median:.2e}, worst {worst:.2e}")
        assert median <= {"bfloat16": 2e-2, "float32": 1e-4}[dtype]
        assert dtype == "bfloat16" or worst <= 1e-2

    def test_while_the_batch_stays_nothing_is_sent(self, cache: Rows, graphs: StepGraphs, monkeypatch: pytest.MonkeyPatch) -> None:
        """The device moves each row on by itself, and does not take a row's old place for another's."""
        sent: list[int] = []
        send_to = Courier.send_to
        monkeypatch.setattr(Courier, "send_to", lambda *args: (sent.append(1), send_to(*args))[1])
        rows = [row for row, context in enumerate(cache.contexts) if context % 64 and context % 64 < 60][:3]
        step = cache.step(rows, 5)
        for turn in range(4):
            step = step._replace(context_lens=np.array(cache.contexts)[rows] + turn)
            expected = cache.eager(step).argmax(-1)
            del sent[:]
            graphs.forward(step)
            assert graphs.sample().equal(expected)
            assert len(sent) == (turn == 0)
        for other in step._replace(context_lens=step.context_lens + 2), step, cache.step(rows[::-1], 5), cache.step(rows[:1], 5):
            del sent[:]
            graphs.forward(other)
            graphs.sample()
            assert len(sent) == 1

    def test_sampling_options_reach_the_graph(self, cache: Rows, graphs: StepGraphs) -> None:
        step = cache.step([0, 1, 2], 5)
        graphs.forward(step)
        greedy = graphs.sample().clone()
        hot = SamplingParams(temperature=50.0)
        for seed in range(3):
            graphs._table.start(RowStart(1, np.zeros(1, np.int32), 1, hot, 0, seed, (), False))
            graphs.forward(cache.step([0, 1, 2], 5))
            drawn = graphs.sample()
            assert drawn[[0, 2]].equal(greedy[[0, 2]])
            assert drawn[1] != greedy[1]

    def test_all_shapes_can_be_captured_ahead(
        self, cache: Rows, graphs: StepGraphs, dtype: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        while graphs.capture_one():
            pass
        monkeypatch.setattr(StepGraphs, "_capture", None)
        for rows, chunks in ([0, 1, 2, 3, 4], ()), ([5], [(3, 100, True), (6, 1, True)]), ([], [(3, 400, True)]):
            step = cache.step(rows, 5, chunks)
            expected = cache.eager(step).argmax(-1)
            best = graphs.forward(step).argmax(-1)
            assert graphs.sample().equal(best)
            assert dtype == "bfloat16" or best.equal(expected)  # see the first test

    def test_nothing_is_taken_by_replaying(self, cache: Rows, graphs: StepGraphs) -> None:
        def run(count: int, token: int) -> None:
            step = cache.step(list(range(count)), token)
            graphs.forward(step)
            graphs.sample()

        for count in range(1, MAX_ROWS + 1):
            run(count, 3)
        assert_nothing_is_taken(lambda: [run(1 + turn % MAX_ROWS, turn) for turn in range(500)])

    def test_a_replay_is_faster_than_the_launches(self, cache: Rows, graphs: StepGraphs, dtype: str) -> None:
        one = cache.step([3], 5)
        replayed, eager = seconds(lambda: graphs.forward(one)), seconds(lambda: cache.eager(one))
        print(f"\n{dtype}: a row: {replayed * 1e6:.0f} us, eager {eager * 1e6:.0f} us")
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
        covers, covered = StepGraphs.covers, []
        monkeypatch.setattr(StepGraphs, "covers", lambda graphs, step: (covered.append(covers(graphs, step)), covered[-1])[1])
        with_graphs = engine_type(config, runner, enable_prefix_caching=False).run(self.wishes(21))
        assert len(replays) == 2 * sum(covered) > 300
        assert len(set(map(id, replays))) >= 12
        monkeypatch.setattr(runner, "_graphs", None)
        without = engine_type(config, runner, enable_prefix_caching=False).run(self.wishes(21))
        assert len(replays) == 2 * sum(covered)
        for one, other in zip(with_graphs, without, strict=True):
            assert one.token_ids == other.token_ids
            assert [entry.token_ids for entry in one.logprobs] == [entry.token_ids for entry in other.logprobs]

    def test_memory_does_not_grow(self, config: EngineConfig, runner: ModelRunner, engine_type: type) -> None:
        engine = engine_type(config, runner, enable_prefix_caching=False)
        engine.run(self.wishes(21))
        torch.cuda.synchronize()
        allocated = torch.cuda.memory_allocated()
        assert_nothing_is_taken(lambda: engine.run(self.wishes(21)), slack=2**26)
        assert torch.cuda.memory_allocated() <= allocated + 2**20
