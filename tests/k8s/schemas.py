"""Whether manifests fit their schemas: the types of the Kubernetes and KServe packages, and ``crds`` for the rest.

A script, because KServe's package cannot be imported beside tritonclient: documents as JSON on standard input, for each the
list of what is wrong with it on standard output. ``null`` fields and missing ones are right in a patch, which has ``"patch"``.
"""

import functools
import json
import re
import sys
from typing import Any, NamedTuple

import kserve.models
import kubernetes.client
import promql_parser
import yaml
from crds import KEYS, KINDS, MAPS, TYPES, VALUES, Field

_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_DURATION = re.compile(r"\d+(ms|s|m|h)")
_PLAIN: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "object": (int, str)}
_RENAMED = {"Duration": _DURATION, "ResourceQuantity": _QUANTITY, "V1beta1MetricQuantity": _QUANTITY}


class Schema(NamedTuple):
    """The fields of a type by their names in JSON, and those of them that there have to be."""

    fields: dict[str, Field]
    required: frozenset[str]


def errors(document: dict[str, Any], patch: bool = False) -> list[str]:
    """What is wrong with a whole document."""
    return list(_Check(patch).value(document, _kind(document), ""))


def _kind(document: dict[str, Any]) -> str:
    """The type of a document; a name that nobody knows if there is no such kind."""
    if not {"apiVersion", "kind"} & set(document):
        return "AdapterValues"
    version, kind = str(document.get("apiVersion")), str(document.get("kind"))
    if (version, kind) in KINDS:
        return KINDS[version, kind]
    group, _, number = version.rpartition("/")
    prefix = number[:1].upper() + number[1:]
    known = {"serving.kserve.io": kserve.models}.get(group, kubernetes.client)
    groups = {"", "apps", "policy", "networking.k8s.io", "rbac.authorization.k8s.io", "autoscaling", "serving.kserve.io"}
    return f"{prefix}{kind}" if group in groups and hasattr(known, f"{prefix}{kind}") else f"unknown {version} {kind}"


class _Check:
    def __init__(self, patch: bool) -> None:
        self._patch = patch

    def value(self, value: Any, field: Field, path: str, name: str = "") -> "list[str]":
        """What is wrong with ``value`` at ``path``, which should be a ``field``."""
        if self._patch and value is None:
            return []
        if isinstance(field, tuple):
            return [] if value in field else [f"{path}: {value!r} is none of {', '.join(field)}"]
        if listed := re.fullmatch(r"[lL]ist\[(.+)\]", field):
            return self._list(value, listed[1], path)
        if mapped := re.fullmatch(r"[dD]ict[\[(]str, (.+)[\])]", field):
            return self._map(value, MAPS.get(name, name), mapped[1], path)
        if field in KEYS:
            return self._map(value, field, "str", path)
        schema = _read(field)
        return self._plain(value, field, path) if schema is None else self._object(value, field, schema, path)

    def _list(self, value: Any, field: str, path: str) -> list[str]:
        if not isinstance(value, list):
            return [f"{path}: has to be a list"]
        return [error for place, item in enumerate(value) for error in self.value(item, field, f"{path}[{place}]")]

    def _map(self, value: Any, keys: str, field: str, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path}: has to be a map"]
        field = "ResourceQuantity" if keys == "Resources" else field
        wrong = [f"{path}: nobody knows {key!r}" for key in value if key not in KEYS.get(keys, value)]
        return wrong + [error for key, item in value.items() for error in self.value(item, field, f"{path}.{key}")]

    def _object(self, value: Any, kind: str, schema: Schema, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path}: has to be an object"]
        wrong = [f"{path}: there is no field {key!r} in {kind}" for key in value if key not in schema.fields]
        if not self._patch:
            wrong += [f"{path}: {key!r} is missing" for key in sorted(schema.required - set(value))]
        for key in set(value) & set(schema.fields):
            field = VALUES.get((kind, key), schema.fields[key])
            wrong += self.value(value[key], field, f"{path}.{key}", key)
        return wrong

    def _plain(self, value: Any, field: str, path: str) -> list[str]:
        if field == "anything":
            return []
        if field == "PromQL":
            return _promql(value, path)
        if field == "JsonPatch":
            return self._list(yaml.safe_load(value) if isinstance(value, str) else value, "JsonPatchStep", path)
        if pattern := _RENAMED.get(field):
            return [] if isinstance(value, str) and pattern.fullmatch(value) else [f"{path}: {value!r} is no {field}"]
        types = _PLAIN.get(field)
        if types is None:
            return [f"{path}: there is no type {field}"]
        right = isinstance(value, types) and (types is bool or not isinstance(value, bool))
        return [] if right else [f"{path}: {value!r} is no {field}"]


def _promql(value: Any, path: str) -> list[str]:
    try:
        promql_parser.parse(value)
    except (TypeError, ValueError) as error:
        return [f"{path}: {error}"]
    return []


@functools.cache
def _read(kind: str) -> Schema | None:
    """The schema of a type that has fields."""
    if kind in TYPES:
        fields = {name.removesuffix("!"): field for name, field in TYPES[kind].items()}
        return Schema(fields, frozenset(name[:-1] for name in TYPES[kind] if name.endswith("!")))
    kind = re.sub(r"^K8sIoApi(Apps|Autoscaling)", "", kind)
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client, kind, None)
    if model is None:
        return None
    names = model.attribute_map
    required = _required(model)
    if {"apiVersion", "kind", "metadata"} <= set(names.values()):
        required += ["apiVersion", "kind", "metadata"]
    return Schema({names[attribute]: field for attribute, field in model.openapi_types.items()}, frozenset(required))


def _required(model: Any) -> list[str]:
    """The fields without which the packages' own classes refuse to be made: pydantic's models, or the older generator's."""
    if hasattr(model, "model_fields"):
        fields = model.model_fields.items()
        return [field.serialization_alias or name for name, field in fields if field.is_required()]
    setters = {name: getattr(model, attribute).fset for attribute, name in model.attribute_map.items()}
    return [
        name for name, setter in setters.items() if any("must not be `None`" in str(text) for text in setter.__code__.co_consts)
    ]


if __name__ == "__main__":
    given = json.load(sys.stdin)
    json.dump([errors(one["document"], one["patch"]) for one in given], sys.stdout)
