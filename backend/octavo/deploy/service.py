"""``Service``: what a KServe InferenceService for one model has to say. Knows the repository, and none of KServe's classes."""

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from octavo.config import WeightsFormat
from octavo.errors import InvalidRequest
from octavo.repository.repository import ModelRepository

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
_FORMATS = {WeightsFormat.GGUF: "gguf", WeightsFormat.SAFETENSORS: "huggingface"}


class Mode(StrEnum):
    """How KServe deploys: Standard with gRPC and REST, Knative with gRPC alone."""

    STANDARD = "Standard"
    KNATIVE = "Knative"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One InferenceService. ``arguments`` are added to those of the ``runtime``."""

    name: str
    namespace: str | None
    mode: Mode
    model_format: str
    storage_uri: str
    runtime: str
    arguments: list[str]


def service_for(
    paths: Sequence[Path], model: str, storage_uri: str, name: str | None, namespace: str | None, mode: Mode, gpu: bool
) -> Service:
    """A service that serves ``model`` as the repository of ``paths`` has it, from a copy of that at ``storage_uri``.

    Raises ``OctavoError`` if the model could not be served, or what is asked for does not fit it.
    """
    repository = ModelRepository(paths, model, download=False)
    spec = repository.spec(model)[-1]
    if not _URI.fullmatch(storage_uri):
        raise InvalidRequest(f"'{storage_uri}' is not a storage URI like hf://org/model, s3://bucket/folder or pvc://claim/folder.")
    if gpu and spec.engine.device == "cpu":
        raise InvalidRequest(f"Model '{model}' is placed on the CPU by its configuration; leave --gpu out or change that.")
    bare = repository.is_bare(model)
    alone = bare or len(repository.names()) == 1
    return Service(
        name=_checked(name or model.lower().replace("_", "-").replace(".", "-"), model),
        namespace=namespace,
        mode=mode,
        model_format=_FORMATS[spec.engine.weights_format] if bare else "triton-repository",
        storage_uri=storage_uri,
        runtime=_runtime(gpu or spec.engine.device.startswith("cuda"), mode),
        arguments=[] if alone else ["--model-control-mode=explicit", f"--load-model={model}"],
    )


def _checked(name: str, model: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"'{name}' cannot be the name of a service for model '{model}': give one of at most 50 small letters, digits and "
            "hyphens with --name, that begins with a letter and ends with none of the hyphens."
        )
    return name


def _runtime(gpu: bool, mode: Mode) -> str:
    """One of the runtimes of ``k8s/runtimes``."""
    return "octavo" + ("-knative" if mode is Mode.KNATIVE else "") + ("-gpu" if gpu else "")
