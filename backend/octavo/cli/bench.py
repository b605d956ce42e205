"""``octavo bench``: flags of each measurement, mapped to one call; prints a table and writes JSON."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.local import REPOSITORY, parsed_settings, plain_errors
from octavo.repository.settings import LoadFormat

if TYPE_CHECKING:
    from octavo.bench.engine import InProcessEngine
    from octavo.bench.peers import Transformers
    from octavo.bench.report import Row
    from octavo.config import EngineConfig

bench = typer.Typer(
    help="Measure this machine: latency, throughput, a whole server, and an engine's phases beside a peer's.", no_args_is_help=True
)


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
Snapshot = Annotated[Path, typer.Argument(help="A snapshot's folder, for dummy weights one with a config.json; or a .gguf file.")]
Format = Annotated[LoadFormat, typer.Option(help="dummy draws random weights on the device.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<index>.")]
Settings = Annotated[str, typer.Option(help="More engine arguments as in a model.json, as one JSON object.")]
BATCHED_TOKENS = 8192
PHASES = "b1,b8,b64,b256,ctx8k_b32,prefill1k,prefill8k,thr_128_128,samp_128_128,thr_1k_1k,itl"


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
    llm: Annotated[bool, typer.Option("--llm", help="Measure LLM from Python too, in turn.")] = False,
    json: Json = Path("bench-throughput.json"),
) -> None:
    """Many requests at once: output tokens per second."""
    from octavo.bench.llm import MeasuredLlm
    from octavo.bench.throughput import run

    engine, peer = _load(model_repository, model, compare)
    measured = MeasuredLlm(engine.config) if llm else None
    _report("throughput", run(engine, peer, measured, requests, input_len, output_len, rounds), compare, json, locals())


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


@bench.command()
def frontend(
    model_repository: Repository = REPOSITORY,
    model: Model = None,
    triton: Annotated[
        Path | None, typer.Option(help="A virtual environment with nvidia-pytriton: measure a real Triton too, in turn.")
    ] = None,
    front_ends: Annotated[int, typer.Option(min=1, help="Front-end processes.")] = 1,
    rounds: Rounds = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="How long each measurement counts.")] = 4.0,
    json: Json = Path("bench-frontend.json"),
) -> None:
    """The front end at an engine's rate: a server before a source of tokens, with the tokenizer of a model (Linux)."""
    from octavo.bench.frontend import run

    rows = run(_config(model_repository, model), triton, front_ends, rounds, seconds)
    _report("frontend", rows, "triton" if triton else None, json, locals())


@bench.command()
def host(
    rows: Annotated[str, typer.Option(help="Comma-separated: how many requests decode at once.")] = "1,64,256,1024",
    steps: Annotated[int, typer.Option(min=1, help="Steps that count; the medians are shown.")] = 600,
    json: Json = Path("bench-host.json"),
) -> None:
    """What planning a step, taking its tokens and telling of them costs the processor, without a model."""
    from octavo.bench.host import run

    try:
        counts = [int(count) for count in rows.split(",")]
        if min(counts) < 1:
            raise ValueError
    except ValueError:
        raise typer.BadParameter(f"{rows!r} must be whole numbers above 0, such as 1,256.", param_hint="--rows") from None
    _report("host", run(counts, steps), None, json, locals())


@bench.command()
def offline(
    model: Snapshot,
    load_format: Format = LoadFormat.AUTO,
    phases: Annotated[
        str, typer.Option(help="Comma-separated: names, in/out/requests, itl, or start for the start-up alone.")
    ] = PHASES,
    device: Device = "auto",
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Most requests that run at once.")] = 512,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one step.")] = BATCHED_TOKENS,
    settings: Settings = "{}",
    peer: Annotated[
        list[Path] | None, typer.Option(help="A peer's figures, from octavo.bench.vllm, or another run of ours. Repeatable.")
    ] = None,
    json: Annotated[Path, typer.Option("--json", help="Where to write the figures, after each phase.")] = Path(
        "bench-offline.json"
    ),
) -> None:
    """One engine, random prompts: each phase's rates, beside what the device can do and what a peer did."""
    from octavo.engine.process import configure_threads

    configure_threads()
    from octavo.bench.offline import check_fits, resolve_model, run
    from octavo.bench.phases import parse_phases
    from octavo.bench.results import write

    limits = {"max_num_seqs": max_num_seqs, "max_num_batched_tokens": max_num_batched_tokens}
    config, shape = resolve_model(model, {"load_format": load_format, "device": device, **limits, **parsed_settings(settings)})
    try:
        plan = parse_phases(phases)
        check_fits(plan, config.max_model_len or shape.max_len)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--phases") from None
    for measurement in run(config, shape, plan):
        write(measurement, json)
        typer.echo(measurement.progress)
    compare(json, peer or [])


@bench.command()
def profile(
    model: Snapshot,
    load_format: Format = LoadFormat.AUTO,
    device: Device = "auto",
    rows: Annotated[int, typer.Option(min=1, help="Requests that decode at once.")] = 1,
    input_len: InputLen = 128,
    settings: Settings = "{}",
    json: Annotated[Path, typer.Option("--json", help="Where to write the figures.")] = Path("bench-profile.json"),
) -> None:
    """One decode step, kernel by kernel (CUDA)."""
    from octavo.bench.offline import resolve_model
    from octavo.bench.profile import run
    from octavo.bench.results import write
    from octavo.bench.tables import profile_table

    limits = {"max_num_seqs": rows, "max_num_batched_tokens": BATCHED_TOKENS}
    with plain_errors():
        config, shape = resolve_model(model, {"load_format": load_format, "device": device, **limits, **parsed_settings(settings)})
        result = run(config, shape, rows, input_len)
    write(result, json)
    typer.echo(profile_table(result))


@bench.command()
def compare(
    ours: Annotated[Path, typer.Argument(help="What octavo bench offline wrote.")],
    peers: Annotated[
        list[Path] | None, typer.Argument(help="Peers' figures, from octavo.bench.vllm, or other runs of ours.")
    ] = None,
) -> None:
    """The figures of a run as Markdown tables: alone, and beside peers' of the same sitting."""
    from octavo.bench.results import read_ours, read_peer
    from octavo.bench.tables import comparison_table, notes, phases_table

    measurement = read_ours(ours)
    for line in notes(measurement):
        typer.echo(line)
    typer.echo("\n" + phases_table(measurement))
    if peers:
        typer.echo("\n" + comparison_table(measurement, [read_peer(path) for path in peers]))


def _config(repository: Path, model: str | None) -> "EngineConfig":
    from octavo.repository.repository import ModelRepository

    models = ModelRepository([repository])
    return models.spec(model or models.names()[0])[-1].engine


def _load(repository: Path, model: str | None, compare: Peer | None) -> "tuple[InProcessEngine, Transformers | None]":
    from octavo.bench.engine import InProcessEngine

    config = _config(repository, model)
    engine = InProcessEngine(config)
    if compare is None:
        return engine, None
    import torch

    from octavo.bench.peers import Transformers

    return engine, Transformers(config, getattr(torch, engine.core.info.dtype))


def _report(title: str, rows: "list[Row]", peer: str | None, json: Path | None, settings: dict[str, object]) -> None:
    from octavo.bench.report import show, write

    show(f"octavo bench {title}", rows, peer)
    if json is not None:
        kept = {name: value for name, value in settings.items() if isinstance(value, int | float | str) or value is None}
        write(json, title, kept, rows)
