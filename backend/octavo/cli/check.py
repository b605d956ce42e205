"""``octavo check``: flags to one look at a repository; problems end it with 1."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.local import REPOSITORY, plain_errors

if TYPE_CHECKING:
    from octavo.check.gpus import GpuModel


def check(
    model_repository: Annotated[
        list[Path] | None,
        typer.Option(
            "--model-repository", "--model-store", help="A folder of models, or one bare snapshot or .gguf file. Repeatable."
        ),
    ] = None,
    model_name: Annotated[str | None, typer.Option(help="The name of the model when the repository is one bare snapshot.")] = None,
    gpu_memory: Annotated[
        str | None,
        typer.Option(help="Plan for GPUs of this memory (80GiB) or name (H200, L4, A100-40GB, …) in place of this machine's."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what `octavo serve` would refuse, and how many tokens and requests fit, without loading anything.

    Reads configurations, tokenizers and the heads of weights, and asks no network. Exits with 1 if there is a problem.
    """
    from octavo.check.report import as_json, problems, show
    from octavo.check.repository import check_repository

    with plain_errors():
        findings = check_repository(model_repository or [REPOSITORY], model_name, _gpu(gpu_memory))
    if json:
        typer.echo(as_json(findings))
    else:
        show(findings)
    found = list(problems(findings)) if findings else ["There is no model in the repository."]
    for line in found:
        typer.echo(line, err=True)
    if found:
        raise typer.Exit(1)


def _gpu(text: str | None) -> "GpuModel | None":
    from octavo.check.gpus import gpu_called

    try:
        return None if text is None else gpu_called(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--gpu-memory") from None
