"""``octavo k8s``: flags to one InferenceService, printed or handed to the user's kubectl."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from octavo.cli.local import REPOSITORY, plain_errors
from octavo.deploy.service import Mode

SCRIPT = "octavo.deploy.kserve_objects"


def k8s(
    model: Annotated[str, typer.Argument(help="A model of the repository; for a bare snapshot, the name to serve it under.")],
    storage_uri: Annotated[
        str, typer.Option(help="Where a copy of the repository or snapshot lies: hf://…, s3://…, pvc://… and so on.")
    ],
    model_repository: Annotated[
        list[Path] | None,
        typer.Option(
            "--model-repository", "--model-store", help="A folder of models, or one bare snapshot or .gguf file. Repeatable."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The service's name, in place of the model's.")] = None,
    namespace: Annotated[str | None, typer.Option(help="The service's namespace, in place of kubectl's.")] = None,
    mode: Annotated[Mode, typer.Option(help="Standard serves gRPC and REST, Knative gRPC alone.")] = Mode.STANDARD,
    gpu: Annotated[bool, typer.Option("--gpu", help="Ask for a GPU even where the model's configuration does not.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Hand it to `kubectl apply` in place of printing it.")] = False,
) -> None:
    """Print a KServe InferenceService for a model, for the runtimes of k8s/runtimes."""
    import msgspec

    from octavo.deploy.service import service_for

    with plain_errors():
        wanted = service_for(model_repository or [REPOSITORY], model, storage_uri, name, namespace, mode, gpu)
    if importlib.util.find_spec("kserve") is None:
        _end("`octavo k8s` needs the KServe SDK; install octavo[kserve].")
    if apply and shutil.which("kubectl") is None:
        _end("--apply needs kubectl, and there is none in PATH.")
    manifest = _manifest(msgspec.json.encode(wanted))
    if apply:
        raise typer.Exit(subprocess.run(["kubectl", "apply", "-f", "-"], input=manifest, check=False).returncode)
    typer.echo(manifest, nl=False)


def _manifest(service: bytes) -> bytes:
    """The object of ``service`` as YAML."""
    made = subprocess.run([sys.executable, "-m", SCRIPT], input=service, stdout=subprocess.PIPE, check=False)
    if made.returncode:
        _end("The KServe SDK could not make the object; its error stands above.")
    return made.stdout


def _end(text: str) -> NoReturn:
    typer.echo(f"Error: {text}", err=True)
    raise typer.Exit(1)
