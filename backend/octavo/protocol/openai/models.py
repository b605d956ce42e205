"""``/v1/models``: what can be named as ``model``."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec


class ServedModel(NamedTuple):
    """A model that answers; ``created``: seconds since the epoch."""

    name: str
    created: int
    max_model_len: int


class _Model(msgspec.Struct, tag_field="object", tag="model"):
    id: str
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int


class _List(msgspec.Struct, tag_field="object", tag="list"):
    data: list[_Model]


def write_model(model: ServedModel) -> bytes:
    """The body that tells of one model."""
    return msgspec.json.encode(_model(model))


def write_models(models: Iterable[ServedModel]) -> bytes:
    """The body that tells of all of them."""
    return msgspec.json.encode(_List([_model(model) for model in models]))


def _model(model: ServedModel) -> _Model:
    return _Model(model.name, model.created, "octavo", model.name, None, model.max_model_len)
