"""``octavo generate`` and ``octavo chat``: flags to one request after another on an engine of their own, shown as they come."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.local import INTERRUPTED, MaxTokens, Model, Seed, Settings, Temperature, TopP, loaded

if TYPE_CHECKING:
    from octavo.offline.terminal import Chunks
    from octavo.offline.thread import EngineThread
    from octavo.sampling import SamplingParams
    from octavo.text.request import Prompt

_TEMPERATURE = 0.7


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads it from standard input.")],
    model: Model = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = _TEMPERATURE,
    top_p: TopP = 1.0,
    seed: Seed = None,
    settings: Settings = "{}",
) -> None:
    """Continue a text with a model that is loaded for it, as it comes."""
    text = sys.stdin.read() if prompt == "-" else prompt
    sampling = _sampling(max_tokens, temperature, top_p, seed)
    with loaded(model, settings, "octavo generate") as (thread, _):
        from octavo.offline.terminal import Terminal

        shown = Terminal().show(_chunks(thread, text, sampling), text)
    if shown.interrupted:
        raise typer.Exit(INTERRUPTED)


def chat(
    model: Model = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = _TEMPERATURE,
    top_p: TopP = 1.0,
    seed: Seed = None,
    settings: Settings = "{}",
) -> None:
    """Talk to a model that is loaded for it. Messages that are piped in, one a line, are answered too."""
    sampling = _sampling(max_tokens, temperature, top_p, seed)
    with loaded(model, settings, "octavo chat") as (thread, _):
        from octavo.offline.terminal import Terminal

        Terminal().converse(lambda messages: _chunks(thread, messages, sampling), system)


def _sampling(max_tokens: int | None, temperature: float, top_p: float, seed: int | None) -> "SamplingParams":
    from octavo.errors import InvalidRequest
    from octavo.sampling import SamplingParams

    try:
        return SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from None


def _chunks(thread: "EngineThread", prompt: "Prompt", sampling: "SamplingParams") -> "Chunks":
    from octavo.text.request import GenerateRequest

    request = GenerateRequest(model=thread.engine.config.name, version=1, prompts=[prompt], sampling=sampling, stream=True)
    return thread.iterate(lambda: thread.engine.stream(request))
