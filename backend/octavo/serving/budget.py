"""Whether a model fits on its device beside those that are there, by the shares that were granted. Knows no process."""

from collections.abc import Iterable
from typing import NamedTuple

from octavo.config import EngineConfig
from octavo.engine.messages import EngineInfo


class Tenant(NamedTuple):
    """An engine that runs: what it was granted, and where."""

    config: EngineConfig
    info: EngineInfo


def fits_beside(fresh: Iterable[EngineConfig], replaced: Tenant, tenants: Iterable[Tenant]) -> bool:
    """Whether the ``fresh`` engines, of which one is to take the place of ``replaced``, can run while all ``tenants`` still do.

    A CPU has room for all: its memory is the operator's concern. A fresh engine is taken to have weights of the old one's size.
    """
    place = replaced.info
    if not place.device_bytes:
        return True
    beside = [config for config in fresh if config.device == replaced.config.device]
    held = sum(_share(tenant.config, tenant.info) for tenant in tenants if tenant.info.device == place.device)
    return held + sum(_share(config, place) for config in beside) <= 1.0


def _share(config: EngineConfig, info: EngineInfo) -> float:
    """The part of its device that an engine may take; ``info`` says how large that is, and the weights."""
    if config.kv_cache_memory_bytes is None:
        return config.gpu_memory_utilization
    return (config.kv_cache_memory_bytes + info.weights_bytes) / info.device_bytes
