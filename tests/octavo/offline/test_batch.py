"""``Batch`` when the engine fails: what is a line's fault is its answer, and what is not is left for the next run."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from octavo.errors import Overloaded, QueueTimeout
from octavo.offline.batch import Batch
from octavo.offline.batch_files import Line
from octavo.text.request import GenerateRequest


class FailingEngine:
    """Fails with ``error``, whatever it is asked."""

    format = None
    config = SimpleNamespace(name="tiny", version=1, max_num_seqs=1)

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def answer(self, _: GenerateRequest) -> None:
        raise self.error


def answers(error: Exception, *contents: str) -> list[dict]:
    async def collect() -> list[dict]:
        lines = iter([Line(number, content.encode()) for number, content in enumerate(contents, start=1)])
        return [json.loads(answer.line) async for answer in Batch(FailingEngine(error), ["tiny"]).run(lines)]

    return asyncio.run(collect())


def line(body: str = '{"model": "tiny", "prompt": "Hello"}', url: str = "/v1/completions") -> str:
    return f'{{"custom_id": "a", "url": "{url}", "body": {body}}}'


def test_a_bug_of_ours_costs_no_other_line_its_answer() -> None:
    first, second = answers(KeyError("secret"), line(), line('{"model": "tiny"}'))
    assert (first["response"]["status_code"], second["response"]["status_code"]) == (500, 400)
    error = first["response"]["body"]["error"]
    assert error["type"] == "server_error"
    assert "secret" not in error["message"]


def test_a_number_out_of_range_is_refused_on_its_line() -> None:
    (answer,) = answers(KeyError(), line('{"model": "tiny", "prompt": "Hello", "suffix": 1e400}'))
    assert (answer["response"]["status_code"], answer["response"]["body"]["error"]["param"]) == (400, "suffix")


@pytest.mark.parametrize("error", [Overloaded("full"), QueueTimeout("late")])
def test_what_is_no_fault_of_a_line_is_not_its_answer(error: Exception) -> None:
    with pytest.raises(type(error)):
        answers(error, line())
