"""The instance group of a model -> the device that its engine runs on. Knows no device: "auto" is resolved by the engine."""

from octavo.errors import LoadFailed
from octavo.wire import mc

_Kind = mc.ModelInstanceGroup.Kind
_REFUSED_FIELDS = ("secondary_devices", "profile", "passive", "host_policy")


def choose_device(config: mc.ModelConfig, wanted: str) -> str:
    """ "cpu", "cuda", "cuda:<i>" or "auto", from the kind, the gpus and ``wanted``, which is ``device`` of ``model.json``.

    KIND_CPU and KIND_GPU decide; otherwise the parameter GPU_DEVICE_IDS does, then ``wanted``. Raises ``LoadFailed`` for
    more than one instance or GPU, and for two choices that differ.
    """
    groups = list(config.instance_group)
    if len(groups) > 1:
        raise LoadFailed(f"Model '{config.name}' has {len(groups)} instance groups; it can have one.")
    group = groups[0] if groups else mc.ModelInstanceGroup()
    _check(group, config.name)
    gpus = list(group.gpus) or _gpu_device_ids(config)
    if len(gpus) > 1:
        raise LoadFailed(f"Model '{config.name}' asks for {len(gpus)} GPUs; a model runs on one.")
    chosen = _device(group.kind, gpus, config.name)
    options = {chosen, wanted} - {"auto"}
    if len(options) == 2 and ("cpu" in options or "cuda" not in options):
        raise LoadFailed(f"Model '{config.name}' is placed on '{chosen}' by its instance group and on '{wanted}' by model.json.")
    return max(options, key=len, default="auto")


def _device(kind: _Kind, gpus: list[int], model: str) -> str:
    if kind == mc.ModelInstanceGroup.KIND_CPU:
        if gpus:
            raise LoadFailed(f"Model '{model}' is KIND_CPU and names GPUs; it can be one or the other.")
        return "cpu"
    if gpus:
        return f"cuda:{gpus[0]}"
    return "cuda" if kind == mc.ModelInstanceGroup.KIND_GPU else "auto"


def _check(group: mc.ModelInstanceGroup, model: str) -> None:
    if group.count not in (0, 1):
        raise LoadFailed(f"The instance group of model '{model}' has count {group.count}; a model has one instance.")
    if any(gpu < 0 for gpu in group.gpus):
        raise LoadFailed(f"The instance group of model '{model}' names a GPU below 0.")
    for field, _ in group.ListFields():
        if field.name in _REFUSED_FIELDS:
            raise LoadFailed(f"The instance group of model '{model}' sets {field.name}, which is not supported.")


def _gpu_device_ids(config: mc.ModelConfig) -> list[int]:
    """vllm_backend's parameter that pins a model to GPUs, "0" or "0,1"."""
    text = config.parameters["GPU_DEVICE_IDS"].string_value if "GPU_DEVICE_IDS" in config.parameters else ""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise LoadFailed(f"Parameter GPU_DEVICE_IDS of model '{config.name}' must be a list of numbers, as '0' or '0,1'.")
    return [int(part) for part in parts]
