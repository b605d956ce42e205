"""A model's tokenizer as Transformers has it, for callers who know that library. Adds nothing to ours: the ids are the same."""

from typing import TYPE_CHECKING, cast

from octavo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def for_transformers(tokenizer: Tokenizer, max_model_len: int) -> "PreTrainedTokenizerFast":
    """A ``PreTrainedTokenizerFast`` of its own over the same vocabulary, special tokens and chat template."""
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        # A copy, for truncation and padding are settings of the backend.
        tokenizer_object=Backend.from_str(tokenizer.backend.to_str()),
        chat_template=tokenizer.chat_template.source if tokenizer.chat_template else None,
        model_max_length=max_model_len,
        clean_up_tokenization_spaces=False,
        **tokenizer.special_tokens,
    )
    return cast("PreTrainedTokenizerFast", wrapped)
