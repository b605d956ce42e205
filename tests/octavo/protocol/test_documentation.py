"""The page for clients names everything that can be sent and nothing else."""

import re
from pathlib import Path

from octavo.protocol.aliases import ALIASES
from octavo.protocol.sampling_fields import _READERS
from octavo.repository.tensors import INPUTS, OUTPUTS

PAGE = (Path(__file__).parents[3] / "docs" / "requests.md").read_text()
NAMED = set(re.findall(r"`([a-z_]+)`", PAGE))


def test_every_input_output_option_and_alias_is_on_the_page():
    tensors = {tensor.name for tensor in (*INPUTS, *OUTPUTS)}
    assert tensors | set(_READERS) - {"prompt_logprobs"} | set(ALIASES) <= NAMED


def test_every_name_in_the_table_of_aliases_is_one():
    table = PAGE.split("## Names of TensorRT-LLM's clients")[1].split("|---|---|")[1]
    left = {name for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert left == set(ALIASES) | {"stop"}
