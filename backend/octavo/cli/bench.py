"""``octavo bench``: flags of the three measurements, mapped to one call each; prints a table and writes JSON."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from octavo.bench.engine import InProcessEngine
    from octavo.bench.peers import Transformers
    from octavo.bench.report import Row

bench = typer.Typer(help="Measure this machine: latency, throughput and a whole server.", no_args_is_help=True)


class Peer(StrEnum):
    """Whom to compare with, in the same run."""

    TRANSFORMERS = "transformers"


Repository = Annotated[Path, typer.Option("--model-repository", help="A folder of models, or one bare snapshot or .gguf file.")]
Model = Annotated[str | None, typer.Option(help="Which model of the repository; the first by default.")]
Compare = Annotated[
    Peer | None, typer.Option(help="Measure this peer too, in turn, on the same weights, threads and token ids (CPU).")
]
Json = Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")]
InputLen = Annotated[int, typer.Option(min=1, help="Prompt tokens.")]
OutputLen = Annotated[int, typer.Option(min=2, help="New tokens.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds; the medians count.")]
REPOSITORY = Path("model_repository")


@bench.command()
def latency(
    model_repository: Repository = REPOSITORY,
    model: Model = None,
    compare: Compare = None,
    input_len: InputLen = 64,
    output_len: OutputLen = 128,
    rounds: Rounds = 5,
    json: Json = Path("bench-latency.json"),
) -> None:
    """One request at a time: decode rate, time to first token, prefix cache."""
    from octavo.bench.latency import run

    engine, peer = _load(model_repository, model, compare)
    _report("latency", run(engine, peer, input_len, output_len, rounds), compare, json, locals())


@bench.command()
def throughput(
    model_repository: Repository = REPOSITORY,
    model: Model = None,
    compare: Compare = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8,
    input_len: InputLen = 64,
    output_len: OutputLen = 128,
    rounds: Rounds = 3,
    json: Json = Path("bench-throughput.json"),
) -> None:
    """Many requests at once: output tokens per second."""
    from octavo.bench.throughput import run

    engine, peer = _load(model_repository, model, compare)
    _report("throughput", run(engine, peer, requests, input_len, output_len, rounds), compare, json, locals())


@bench.command()
def serve(
    model_repository: Repository = REPOSITORY,
    model: Model = None,
    lanes: Annotated[int, typer.Option(min=1, help="Streams at once.")] = 8,
    requests: Annotated[int, typer.Option(min=1, help="Requests in all.")] = 32,
    words: Annotated[int, typer.Option(min=1, help="Words of each prompt, four random letters each.")] = 16,
    output_len: OutputLen = 64,
    json: Json = Path("bench-serve.json"),
) -> None:
    """A server of its own under streaming load: start, memory, rate, TTFT, gaps."""
    from octavo.bench.serve import run
    from octavo.repository.repository import ModelRepository

    name = model or ModelRepository([model_repository]).names()[0]
    _report("serve", run(model_repository, name, lanes, requests, words, output_len), None, json, locals())


def _load(repository: Path, model: str | None, compare: Peer | None) -> "tuple[InProcessEngine, Transformers | None]":
    from octavo.bench.engine import InProcessEngine
    from octavo.repository.repository import ModelRepository

    models = ModelRepository([repository])
    config = models.spec(model or models.names()[0])[-1].engine
    engine = InProcessEngine(config)
    if compare is None:
        return engine, None
    import torch

    from octavo.bench.peers import Transformers

    return engine, Transformers(config, getattr(torch, engine.core.info.dtype))


def _report(title: str, rows: "list[Row]", compare: Peer | None, json: Path | None, settings: dict[str, object]) -> None:
    from octavo.bench.report import show, write

    show(f"octavo bench {title}", rows, compare and compare.value)
    if json is not None:
        kept = {name: value for name, value in settings.items() if isinstance(value, int | float | str) or value is None}
        write(json, title, kept, rows)
