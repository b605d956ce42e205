"""Plans for GPUs that are not here: near what engines have measured, and what the table of ``docs/operations.md`` says."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from octavo.check.gpus import GPUS, gpu_called

pytest.importorskip("triton.backends.nvidia")
sys.path.insert(0, str(Path(__file__).parent))

from repositories import MODELS, plans, write_model, write_snapshot

DOCS = Path(__file__).parents[3] / "docs"
LENGTH = 8192
MEASURED = {
    "h200-qwen3-0.6b": "Qwen3-0.6B",
    "h200-llama-3.2-1b": "Llama-3.2-1B",
    "h200-llama-3.2-1b-deterministic": "Llama-3.2-1B",
    "h200-llama-3.1-8b": "Llama-3.1-8B",
    "h200-llama-3.1-8b-deterministic": "Llama-3.1-8B",
    "h200-qwen3-8b": "Qwen3-8B",
}
# A model, a run of it, and one that does not fit; all the others take as long each, so they are for long runs.
SOME = ("Llama-3.2-1B", "h200-llama-3.2-1b-deterministic", "Llama-3.3-70B")
ALL = (*MODELS, *MEASURED)
ALIKE = ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "deterministic", "block_size")


def repository_of(folder: Path, names: Sequence[str]) -> Path:
    """Models, each on a GPU of its own, as the table has it."""
    (folder / "repository").mkdir(parents=True)
    for place, name in enumerate(names):
        write_snapshot(folder / name, MODELS[name])
        write_model(folder / "repository", name, folder / name, device=f"cuda:{place}", max_model_len=LENGTH)
    return folder / "repository"


def column(findings: dict[str, dict]) -> dict[str, str]:
    """What the table says of each model on one GPU."""
    return {name: cell(finding["plan"]) for name, finding in findings.items()}


def cell(plan: dict | None) -> str:
    return "–" if plan is None else f"{plan['tokens']:,} ({plan['requests']})"


def documented() -> dict[str, dict[str, str]]:
    """The table by GPU and model."""
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in (DOCS / "operations.md").read_text().splitlines()]
    head = next(row for row in rows if row[1:2] == ["weights"])
    table = [row for row in rows if row and row[0] in MODELS]
    return {gpu: {row[0]: row[head.index(gpu)] for row in table} for gpu in head[2:]}


@pytest.fixture(scope="module", params=[pytest.param(SOME, id="some"), pytest.param(ALL, id="all", marks=pytest.mark.long)])
def h200(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Plans for H200s: of the table's models, and of what was measured, each on a GPU of its own; of ``SOME`` or of all."""
    folder = tmp_path_factory.mktemp("sizing")
    repository = repository_of(folder, [name for name in request.param if name in MODELS])
    for place, run in enumerate(run for run in request.param if run in MEASURED):
        settings = json.loads((DOCS / "performance" / f"{run}.json").read_text())["settings"]
        kept = {name: settings[name] for name in ALIKE}
        write_model(repository, run, folder / MEASURED[run], device=f"cuda:{len(MODELS) + place}", **kept)
    return plans(repository, "H200")


def test_a_plan_is_within_a_hundredth_of_what_engines_have_measured(h200: dict[str, dict]) -> None:
    runs = MEASURED.keys() & h200.keys()
    assert runs
    for run in runs:
        tokens = json.loads((DOCS / "performance" / f"{run}.json").read_text())["settings"]["cache_tokens"]
        assert h200[run]["plan"]["tokens"] == pytest.approx(tokens, rel=0.01), run
        assert not h200[run]["problems"]


def test_the_table_says_what_the_command_says_of_an_h200(h200: dict[str, dict]) -> None:
    known = {name: text for name, text in documented()["H200"].items() if name in h200}
    assert {name: text for name, text in column(h200).items() if name in MODELS} == known != {}
    weights = {name: finding["plan"]["weights_bytes"] for name, finding in h200.items() if finding["plan"]}
    for line in (DOCS / "operations.md").read_text().splitlines():
        if (named := re.match(r"\| (\S+) \| ([\d.]+) GiB \|", line)) and named[1] in weights:
            assert f"{weights[named[1]] / 2**30:.1f}" == named[2]


@pytest.mark.long
@pytest.mark.parametrize("gpu", sorted(documented().keys() - {"H200"}))
def test_the_table_says_what_the_command_says_of_every_gpu(tmp_path: Path, gpu: str) -> None:
    assert column(plans(repository_of(tmp_path, tuple(MODELS)), gpu)) == documented()[gpu]


def test_what_does_not_fit_is_told_with_the_figures(h200: dict[str, dict]) -> None:
    (problem,) = h200["Llama-3.3-70B"]["problems"]
    assert problem.startswith("The KV cache may take 0.0 MiB, which holds 0 tokens, but one request of max_model_len 8192 needs")


@pytest.mark.gpu
def test_a_plan_is_what_the_engine_takes_of_this_gpu(tmp_path: Path) -> None:
    import torch

    from octavo.repository.repository import ModelRepository
    from octavo.runtime.runner import ModelRunner

    write_model(tmp_path / "repository", "m", write_snapshot(tmp_path / "m", MODELS["Qwen3-0.6B"]), max_model_len=LENGTH)
    plan = plans(tmp_path / "repository", f"{torch.cuda.mem_get_info()[1] // 2**20}MiB")["m"]["plan"]
    info = ModelRunner(ModelRepository([tmp_path / "repository"]).spec("m")[0].engine).info
    assert plan["weights_bytes"] == info.weights_bytes
    assert plan["tokens"] == pytest.approx(info.num_pages * info.page_size, rel=0.02)


def test_gpus_are_known_by_name_and_by_size() -> None:
    assert gpu_called("h200") == GPUS["H200"]
    assert gpu_called("A100") == gpu_called("a100-80gb") == GPUS["A100-80GB"]
    assert gpu_called("80GiB").total == 80 * 2**30
    assert gpu_called("79.5 GB").total == 79.5e9
    assert gpu_called("81559MiB").total == 81559 * 2**20
    assert gpu_called("80GiB").empty().free < 80 * 2**30
