"""JSON from a file or a client, to values that can be sent on and written down. Knows no key."""

import json
from typing import Any


def parse_json(text: str) -> Any:
    """The value in ``text``. Raises ``ValueError`` for what is no JSON, ``RecursionError`` for what is nested too deep.

    Half of a surrogate pair, which JSON can spell, is refused: no text that holds one can be encoded.
    """
    value = json.loads(text)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds half of a surrogate pair") from None
    return value
