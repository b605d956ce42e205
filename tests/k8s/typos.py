"""Every way in which a manifest can be wrong by one letter or one type."""

import json
from collections.abc import Iterator
from typing import Any

import yaml
from manifests import Manifest


def typos(one: Manifest) -> Iterator[Manifest]:
    """``one`` with a letter too many in one of its keys, or a list in the place of one of its values; for all of them."""
    document = _with_open_patches(one.document)
    text = json.dumps(document)
    for path in _paths(document):
        if isinstance(_at(document, path[:-1]), dict):
            yield one._replace(where=f"{one.where}: {path} renamed", document=_renamed(json.loads(text), path))
        if not isinstance(_at(document, path), dict | list) and not _is_free(path):
            retyped = json.loads(text)
            _at(retyped, path[:-1])[path[-1]] = [["wrong"]]
            yield one._replace(where=f"{one.where}: {path} retyped", document=retyped)


def _with_open_patches(document: dict[str, Any]) -> dict[str, Any]:
    opened = json.loads(json.dumps(document))
    for patch in opened.get("patches", []):
        if "patch" in patch:
            patch["patch"] = yaml.safe_load(patch["patch"])
    return opened


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        if not _is_free(path):
            yield (*path, key)
            yield from _paths(value, (*path, key))


def _is_free(path: tuple[Any, ...]) -> bool:
    """What a JSON patch puts somewhere is looked at where it ends up: in what is built."""
    return "value" in path and "patch" in path


def _at(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        node = node[key]
    return node


def _renamed(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    inner = _at(document, path[:-1])
    inner[f"{path[-1]}s"] = inner.pop(path[-1])
    return document
