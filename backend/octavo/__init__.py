"""Octavo serves large language models from a paged KV cache, behind the protocols that serving platforms speak.

From Python, ``LLM`` generates without a server. The names here are loaded when they are asked for: this package is light to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.offline.llm import LLM
    from octavo.offline.outputs import CompletionOutput, RequestOutput
    from octavo.offline.prompts import TextPrompt, TokensPrompt
    from octavo.sampling import SamplingParams

__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams", "TextPrompt", "TokensPrompt"]
__version__ = "0.1.0"

_HOMES = {
    "LLM": "octavo.offline.llm",
    "CompletionOutput": "octavo.offline.outputs",
    "RequestOutput": "octavo.offline.outputs",
    "SamplingParams": "octavo.sampling",
    "TextPrompt": "octavo.offline.prompts",
    "TokensPrompt": "octavo.offline.prompts",
}


def __getattr__(name: str) -> Any:
    """A public name, from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'octavo' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names too, for whoever completes them."""
    return sorted({*globals(), *__all__})
