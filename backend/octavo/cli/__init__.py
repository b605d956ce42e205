"""The ``octavo`` command. Each subcommand is a thin map from flags to one call; nothing heavy is imported before it is needed."""

import typer

from octavo.cli.batch import batch
from octavo.cli.bench import bench
from octavo.cli.check import check
from octavo.cli.compile import compile
from octavo.cli.generate import chat, generate
from octavo.cli.k8s import k8s
from octavo.cli.serve import serve
from octavo.cli.switches import SwitchCommand

app = typer.Typer(
    help="Serve large language models from a paged KV cache over KServe v2 / Triton, gRPC and HTTP, and the OpenAI API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command(cls=SwitchCommand)(serve)
app.command()(check)
app.command()(compile)
app.command()(k8s)
app.command()(generate)
app.command()(chat)
app.command()(batch)
app.add_typer(bench, name="bench")
