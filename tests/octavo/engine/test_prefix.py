"""A key stands for its page and all before it, under one salt and in one process."""

import numpy as np

from octavo.engine.prefix import PrefixChain


def keys_of(chain: PrefixChain, tokens: list[int], salt: str = "") -> list[bytes]:
    keys: list[bytes] = []
    chain.extend(keys, salt, np.array(tokens, np.int32))
    return keys


def test_only_full_pages_have_keys() -> None:
    chain = PrefixChain(4)
    assert [len(keys_of(chain, list(range(count)))) for count in (3, 4, 7, 8)] == [0, 1, 1, 2]


def test_extending_step_by_step_gives_the_same_keys() -> None:
    chain, tokens = PrefixChain(2), np.arange(9, dtype=np.int32)
    keys: list[bytes] = []
    for known in range(10):
        chain.extend(keys, "s", tokens[:known])
    assert keys == keys_of(chain, tokens.tolist(), "s")


def test_a_key_depends_on_everything_before_its_page() -> None:
    chain = PrefixChain(2)
    assert keys_of(chain, [1, 2, 3, 4])[1] != keys_of(chain, [1, 5, 3, 4])[1]
    assert keys_of(chain, [1, 2, 3, 4])[0] == keys_of(chain, [1, 2, 3, 5])[0]


def test_salts_and_processes_never_meet() -> None:
    chain = PrefixChain(2)
    assert keys_of(chain, [1, 2], "a") != keys_of(chain, [1, 2], "b")
    assert keys_of(chain, [1, 2]) != keys_of(PrefixChain(2), [1, 2])
