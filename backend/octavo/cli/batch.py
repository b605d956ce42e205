"""``octavo batch``: an OpenAI batch file, answered by an engine of its own; shows how far it is."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.local import INTERRUPTED, Model, Settings, loaded, plain_errors

if TYPE_CHECKING:
    from octavo.offline.batch_files import BatchFiles
    from octavo.offline.thread import EngineThread


def batch(
    requests: Annotated[Path, typer.Argument(help="A file with one request a line: custom_id, url and body.")],
    answers: Annotated[Path, typer.Argument(help="Where the answers go, one a line, as they come.")],
    model: Model = None,
    settings: Settings = "{}",
) -> None:
    """Answer an OpenAI batch file; the same command goes on where the last one was interrupted, however it was."""
    from octavo.offline.batch_files import BatchFiles

    with plain_errors(), closing(BatchFiles(requests, answers)) as files:
        refused = files.refused
        if files.answered < files.total:
            with loaded(model, settings, "octavo batch") as (thread, names):
                refused += _run(files, thread, names)
    before = f", {files.answered} of them before" if files.answered else ""
    typer.echo(f"{files.total} requests answered{before}; {refused} could not be served.", err=True)


def _run(files: "BatchFiles", thread: "EngineThread", names: list[str]) -> int:
    """Answer what is open; how many of those answers are errors."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from octavo.offline.batch import Batch

    engine = thread.engine
    work = Batch(engine, names)
    columns = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("{task.fields[speed]}", style="dim")]
    refused = tokens = 0
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        shown = bar.add_task(engine.config.name, total=files.total, completed=files.answered, speed="")
        try:
            with closing(thread.iterate(lambda: work.run(files.open_lines()))) as answers:
                for answer in answers:
                    files.write(answer.line)
                    tokens += answer.tokens
                    refused += not answer.ok
                    seconds = bar.tasks[shown].elapsed or 1.0
                    bar.update(shown, advance=1, speed=f"{tokens / seconds:.0f} tokens/s")
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    return refused
