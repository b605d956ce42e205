"""Every PromQL expression of ``k8s/``, and which of its series a server does not expose."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
from manifests import ROOT, files

_QUERIES = {"expr", "query", "seriesQuery", "metricsQuery"}
# What the gateway's endpoint picker reads of a pod unless it is told otherwise, with the labels that it needs.
_PICKED = {
    "vllm:num_requests_waiting": set[str](),
    "vllm:num_requests_running": set[str](),
    "vllm:kv_cache_usage_perc": set[str](),
    "vllm:lora_requests_info": {"max_lora", "running_lora_adapters", "waiting_lora_adapters"},
    "vllm:cache_config_info": {"block_size", "num_gpu_blocks"},
}
# What Prometheus itself adds, and its own series.
_ADDED = {"namespace", "pod", "job"}
_OWN = {"up"}
# Grafana's and the adapter's words, put in before anything is parsed.
_WORDS = {"$__rate_interval": "5m", "<<.LabelMatchers>>": 'pod="a"', "<<.GroupBy>>": "pod"}


def watched_queries() -> list[str]:
    """Of the rules, the scalers and the dashboard; each parses."""
    documents = [one.document for one in files()] + [json.loads((ROOT / "monitoring" / "dashboard.json").read_text())]
    return sorted({query for document in documents for query in _queries(document)})


def missing_series(exposed: str) -> list[str]:
    """The series of those queries, and of the picker, that are not in a text of ``/metrics``, or lack a label that is asked for."""
    labels: dict[str, set[str]] = {}
    for name, text in re.findall(r"^([A-Za-z_:][\w:]*)\{(.*)\} ", exposed, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', text))
    asked = [(name, wanted, query) for query in watched_queries() for name, wanted in _series(promql.parse(query), set())]
    asked += [(name, wanted, "the endpoint picker") for name, wanted in _PICKED.items()]
    return [
        f"{name} by {sorted(wanted)} in: {query}"
        for name, wanted, query in asked
        if name not in _OWN and not (name in labels and wanted - _ADDED <= labels[name])
    ]


def _queries(node: Any) -> Iterator[str]:
    """The expressions in a document; a variable of the dashboard asks for the values of a label of one series."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _QUERIES and isinstance(value, str) and value != "prometheus":
                yield _plain(value)
            else:
                yield from _queries(value)
    elif isinstance(node, list):
        for item in node:
            yield from _queries(item)


def _plain(query: str) -> str:
    for word, value in _WORDS.items():
        query = query.replace(word, value)
    return re.sub(r"^label_values\((.+), (\w+)\)$", r"sum by (\2) (\1)", query)


def _series(node: Any, wanted: set[str]) -> Iterator[tuple[str, set[str]]]:
    """Each series under ``node``, with the labels that it has to have."""
    match node:
        case promql.VectorSelector():
            yield node.name, wanted | {matcher.name for matcher in node.matchers.matchers}
        case promql.MatrixSelector():
            yield from _series(node.vector_selector, wanted)
        case promql.AggregateExpr():
            yield from _series(node.expr, wanted | set(node.modifier.labels if node.modifier else ()))
        case promql.Call():
            for argument in node.args:
                yield from _series(argument, wanted | ({"le"} if node.func.name == "histogram_quantile" else set()))
        case promql.BinaryExpr():
            yield from _series(node.lhs, wanted)
            yield from _series(node.rhs, wanted)
        case promql.ParenExpr():
            yield from _series(node.expr, wanted)
        case promql.NumberLiteral():
            return
        case _:
            raise TypeError(f"This test knows no {type(node).__name__}.")
