"""``config.pbtxt`` -> a checked and completed ``ModelConfig``. Knows Triton's message, not the weights behind it.

A configuration may be nearly empty: tensors, policies and the instance group are filled in as Triton and vllm_backend fill
them. What a language model cannot do (batching by the server, sequences, ensembles, warm-up ...) is refused by name.
"""

import logging
from collections.abc import Iterable, Iterator

from google.protobuf import json_format, text_format

from octavo.errors import LoadFailed, NotFound, Problems, shown
from octavo.repository.json_text import parse_json
from octavo.repository.tensors import INPUTS, OUTPUTS
from octavo.wire import mc

log = logging.getLogger(__name__)

BACKENDS = ("octavo", "vllm")
_KNOWN_PARAMETERS = {"REPORT_CUSTOM_METRICS", "ENABLE_VLLM_HEALTH_CHECK", "GPU_DEVICE_IDS"}
_OWN_BATCHES = "the engine forms its own batches"
_REFUSED_FIELDS = {
    "platform": "a model is chosen by its backend",
    "runtime": "a model is chosen by its backend",
    "batch_input": _OWN_BATCHES,
    "batch_output": _OWN_BATCHES,
    "dynamic_batching": _OWN_BATCHES,
    "sequence_batching": "a request is complete in itself",
    "ensemble_scheduling": "models are not chained",
    "cc_model_filenames": "weights are named by model.json",
    "model_warmup": "the engine warms itself up",
    "model_operations": "nothing that a repository names is ever loaded as code",
    "model_repository_agents": "nothing that a repository names is ever loaded as code",
}


def parse_config(text: str, model: str) -> mc.ModelConfig:
    """The message in ``text``, a ``config.pbtxt``. Raises ``LoadFailed`` with the place of the mistake."""
    try:
        return text_format.Parse(text, mc.ModelConfig())
    except text_format.ParseError as error:
        reason = str(error).removeprefix(f"{error.GetLine()}:{error.GetColumn()} : ").rstrip(".")
        place = f"line {error.GetLine()}, column {error.GetColumn()}"
        raise LoadFailed(f"The configuration of model '{model}' does not parse at {place}: {reason}.") from None


def parse_config_json(text: str, model: str) -> mc.ModelConfig:
    """The message in ``text``, a ``ModelConfig`` in JSON, as a load may carry it.

    Raises what an unknown model raises, because Triton answers both alike; the log has the mistake.
    """
    try:
        return json_format.ParseDict(json_object(text), mc.ModelConfig())
    except (json_format.ParseError, ValueError, RecursionError) as error:
        log.warning("The configuration that a load of model '%s' brought does not parse: %s", model, error)
        raise poll_failed(model) from None


def json_object(text: str) -> dict[str, object]:
    """The object in ``text``. Raises ``ValueError`` for anything else, ``RecursionError`` for what is nested too deep."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("it must be a JSON object")
    return value


def poll_failed(model: str) -> NotFound:
    """Triton's answer to a load of a model that it cannot read from the repository."""
    return NotFound(f"failed to load '{shown(model)}', failed to poll from model repository")


def complete_config(config: mc.ModelConfig, model: str) -> mc.ModelConfig:
    """A copy of ``config`` as the ModelConfig RPC answers it for ``model``. Raises ``LoadFailed`` for what cannot be served."""
    _check(config, model)
    done = mc.ModelConfig()
    done.CopyFrom(config)
    done.name = model
    done.backend = config.backend or BACKENDS[0]
    if not done.version_policy.WhichOneof("policy_choice"):
        done.version_policy.latest.num_versions = 1
    done.ClearField("input")
    done.input.extend(INPUTS)
    done.ClearField("output")
    done.output.extend(OUTPUTS)
    _complete_instance_group(done)
    for pinned in (done.optimization.input_pinned_memory, done.optimization.output_pinned_memory):
        pinned.enable = True
    done.model_transaction_policy.decoupled = True
    return done


def _complete_instance_group(config: mc.ModelConfig) -> None:
    """One group with a name and a count; without a kind, the engine chooses the device."""
    group = config.instance_group[0] if config.instance_group else config.instance_group.add()
    if group.kind == mc.ModelInstanceGroup.KIND_AUTO:
        group.kind = mc.ModelInstanceGroup.KIND_MODEL
    group.name = group.name or f"{config.name}_0"
    group.count = group.count or 1


def _check(config: mc.ModelConfig, model: str) -> None:
    found = Problems()
    if config.name not in ("", model):
        found.add(f"unexpected directory name '{model}' for model '{config.name}', directory name must equal model name")
    if config.backend not in ("", *BACKENDS):
        found.add(f"The configuration of model '{model}' names backend '{config.backend}'; it must be 'octavo' or 'vllm'.")
    if config.max_batch_size != 0:
        found.add(f"max_batch_size of model '{model}' must be 0, because {_OWN_BATCHES}, got {config.max_batch_size}.")
    if config.HasField("model_transaction_policy") and not config.model_transaction_policy.decoupled:
        found.add(f"model_transaction_policy of model '{model}' must be decoupled; unary requests are answered as well.")
    if config.response_cache.enable:
        found.add(f"response_cache of model '{model}' must be off, because answers are not cached.")
    for field, _ in config.ListFields():
        if field.name in _REFUSED_FIELDS:
            found.add(f"{field.name} of model '{model}' is not supported: {_REFUSED_FIELDS[field.name]}.")
    found.add(*_wrong_tensors(config.input, INPUTS, "input", model))
    found.add(*_wrong_tensors(config.output, OUTPUTS, "output", model))
    found.check()
    for name in sorted(set(config.parameters) - _KNOWN_PARAMETERS):
        log.info("Model '%s': parameter '%s' of its configuration has no effect.", model, name)


def _wrong_tensors(
    declared: Iterable[mc.ModelInput] | Iterable[mc.ModelOutput],
    ours: tuple[mc.ModelInput, ...] | tuple[mc.ModelOutput, ...],
    kind: str,
    model: str,
) -> Iterator[str]:
    """Tensors that a configuration lists itself must be those that we serve."""
    expected = {tensor.name: tensor for tensor in ours}
    for tensor in declared:
        match = expected.get(tensor.name)
        if match is None:
            known = ", ".join(expected)
            yield f"Model '{model}' declares {kind} '{tensor.name}', which is not served; the {kind}s are {known}."
        elif (tensor.data_type, list(tensor.dims)) != (match.data_type, list(match.dims)):
            yield f"Model '{model}' declares {kind} '{tensor.name}' as {_shape(tensor)}; it is {_shape(match)}."


def _shape(tensor: mc.ModelInput | mc.ModelOutput) -> str:
    return f"{mc.DataType.Name(tensor.data_type)} {list(tensor.dims)}"
