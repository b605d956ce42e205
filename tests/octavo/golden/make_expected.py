"""Writes ``expected.json``: what transformers generates greedily, in float32 on a CPU, for the golden prompts.

Run it as ``python tests/octavo/golden/make_expected.py path/to/SmolLM2-135M-Instruct.Q4_1.gguf`` with the test requirements
installed; it takes a few minutes. With ``--check`` it writes nothing and fails if the file says otherwise.
"""

import argparse
import json
from pathlib import Path
from typing import TypedDict

import torch
from prompts import PROMPTS, Prompt
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

EXPECTED = Path(__file__).with_name("expected.json")
NEW_TOKENS = 64
SMALLEST_MARGIN = 2e-3


class Expected(TypedDict):
    """One prompt's token ids, the greedy continuation, and the smallest gap between the best two logits on the way."""

    name: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    margin: float


def load(weights: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The demo model in float32 and its tokenizer, by transformers' own reading of the GGUF file."""
    model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """The prompt's token ids."""
    text = prompt.text
    if prompt.chat:
        turn = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def continue_greedily(model: PreTrainedModel, prompt_token_ids: list[int]) -> tuple[list[int], float]:
    """``NEW_TOKENS`` greedy tokens, past any end of sequence, and the smallest margin of a choice."""
    model.generation_config.eos_token_id = None
    prompt = torch.tensor([prompt_token_ids])
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    best = torch.cat(out.logits).topk(2).values
    return out.sequences[0, len(prompt_token_ids) :].tolist(), float((best[:, 0] - best[:, 1]).min())


def expect(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Expected:
    """What ``prompt`` must give."""
    ids = encode(tokenizer, prompt)
    token_ids, margin = continue_greedily(model, ids)
    return Expected(name=prompt.name, prompt_token_ids=ids, token_ids=token_ids, margin=round(margin, 5))


def main(weights: Path, check: bool) -> None:
    """Compute all prompts, refusing a choice so close that rounding may turn it, and write the file or compare with it."""
    model, tokenizer = load(weights)
    rows = []
    for prompt in PROMPTS:
        row = expect(model, tokenizer, prompt)
        print(f"{row['name']:12} {len(row['prompt_token_ids']):4} tokens, margin {row['margin']:.5f}", flush=True)
        if row["margin"] < SMALLEST_MARGIN:
            raise SystemExit(f"The prompt {prompt.name!r} has a near tie; change its text.")
        rows.append(row)
    if not check:
        EXPECTED.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
    elif [same(row) for row in rows] != [same(row) for row in json.loads(EXPECTED.read_text(encoding="utf-8"))]:
        raise SystemExit("expected.json is not what transformers generates.")


def same(row: Expected) -> tuple[str, list[int], list[int]]:
    """What must not differ between two machines; a margin may, a little."""
    return row["name"], row["prompt_token_ids"], row["token_ids"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    main(options.weights, options.check)
