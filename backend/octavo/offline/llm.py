"""``LLM``: text generation from Python under the names of vLLM's class, on an engine of its own. Knows no process and no thread."""

import itertools
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from octavo.errors import InvalidRequest, Unsupported
from octavo.offline.conversations import Message, Spelling, spell
from octavo.offline.engine import UNLIMITED, Completion
from octavo.offline.outputs import RequestOutput, read_output
from octavo.offline.progress import Progress
from octavo.offline.prompts import Given, PromptType, read_prompts
from octavo.offline.thread import EngineThread
from octavo.offline.tokenizer import for_transformers
from octavo.repository.direct import direct_model
from octavo.sampling import SamplingParams
from octavo.text.request import GenerateRequest

if TYPE_CHECKING:
    from tqdm import tqdm
    from transformers import PreTrainedTokenizerFast

Sampling = SamplingParams | Sequence[SamplingParams] | None


class LLM:
    """A model on an engine of its own, in a process that ends with this object, with ``close`` or with the interpreter.

    ``model`` is a folder with a Hugging Face snapshot, a ``.gguf`` file, a hub id or ``package://distribution/file``. The other
    arguments are vLLM's engine arguments: each is honoured, accepted without effect, or refused by name with ``LoadFailed``.
    Nothing that a model's repository holds is ever run. May be used from several threads.
    """

    def __init__(self, model: str | Path, **arguments: Any) -> None:
        """Load the model and wait until it is ready. Raises ``LoadFailed``."""
        config = direct_model({"max_queue_size": UNLIMITED, **arguments, "model": model}, "LLM()").engine
        self._thread = EngineThread(config)
        self._name = config.name
        self._ids = itertools.count()
        self.close = weakref.finalize(self, self._thread.close)

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType],
        sampling_params: Sampling = None,
        *,
        use_tqdm: "bool | Callable[..., tqdm]" = True,
        lora_request: None = None,
        priority: Sequence[int] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """The answers to all prompts, in their order. A prompt is a text, token ids, ``TextPrompt`` or ``TokensPrompt``.

        ``sampling_params``: for all, or one for each. ``priority``: one for each, the smallest first; without
        ``scheduling_policy="priority"`` it has no effect. ``use_tqdm``: whether to show a bar, or what makes it.
        If one prompt is refused, all are: ``InvalidRequest``, which is a ``ValueError``.
        """
        _refuse(lora_request=lora_request, tokenization_kwargs=tokenization_kwargs)
        return self._run(read_prompts(prompts), sampling_params, use_tqdm, priority)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: Sampling = None,
        use_tqdm: "bool | Callable[..., tqdm]" = True,
        lora_request: None = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """The answers to one conversation or several, each spelled by the model's chat template or by ``chat_template``.

        ``tools`` and ``chat_template_kwargs`` are told the template. ``continue_final_message``, with ``add_generation_prompt``
        false, has the last message continued. Contents are texts or lists of text parts, which is seen from them.
        """
        if chat_template_content_format not in ("auto", "string"):
            raise Unsupported("chat_template_content_format must be 'auto' or 'string': templates are given texts.")
        _refuse(lora_request=lora_request, tokenization_kwargs=tokenization_kwargs, mm_processor_kwargs=mm_processor_kwargs)
        variables = {"tools": tools, **(chat_template_kwargs or {})}
        spelling = Spelling(chat_template, add_generation_prompt, continue_final_message, variables)
        engine = self._thread.engine
        return self._run(spell(messages, spelling, engine.tokenizer, engine.templates), sampling_params, use_tqdm, None)

    def encode(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: it needs a pooling model, and only text generation is served."""
        raise Unsupported("encode needs a pooling model, and only text generation is served; use generate or chat.")

    def get_tokenizer(self) -> "PreTrainedTokenizerFast":
        """The model's tokenizer as Transformers has it."""
        engine = self._thread.engine
        return for_transformers(engine.tokenizer, engine.info.max_model_len)

    def get_default_sampling_params(self) -> SamplingParams:
        """What is used where none are given: vLLM's defaults, whatever the model's generation_config.json says."""
        return SamplingParams()

    def _run(
        self,
        prompts: list[Given],
        sampling_params: Sampling,
        use_tqdm: "bool | Callable[..., tqdm]",
        priority: Sequence[int] | None,
    ) -> list[RequestOutput]:
        samplings = _each("sampling_params", sampling_params, len(prompts), SamplingParams, self.get_default_sampling_params())
        checked = {id(sampling): _checked(sampling) for sampling in samplings}
        requests = [
            GenerateRequest(
                model=self._name,
                version=1,
                prompts=[given.prompt],
                sampling=checked[id(sampling)],
                priority=int(level),  # a bool is one, but not to the engine
                cache_salt=given.cache_salt,
            )
            for given, sampling, level in zip(prompts, samplings, _each("priority", priority, len(prompts), int, 0), strict=True)
        ]
        outputs: dict[int, RequestOutput] = {}
        ids = [str(next(self._ids)) for _ in prompts]
        with Progress(len(prompts), use_tqdm) as progress, closing(self._complete(requests)) as completions:
            for number, generation, chunk in completions:
                text = prompts[number].text
                outputs[number] = read_output(ids[number], text, generation, chunk, self._thread.engine.tokenizer)
                progress.add(generation)
        return [outputs[number] for number in range(len(prompts))]

    def _complete(self, requests: list[GenerateRequest]) -> Generator[Completion]:
        engine = self._thread.engine
        return self._thread.iterate(lambda: engine.complete(requests))


def _each(name: str, given: Any, count: int, one: type, default: Any) -> list[Any]:
    """``given`` for each of ``count`` prompts."""
    if given is None or isinstance(given, one):
        return [default if given is None else given] * count
    if not isinstance(given, Sequence) or not all(isinstance(item, one) for item in given):
        raise InvalidRequest(f"{name} must be one {one.__name__} or a list with one for each prompt.")
    if len(given) != count:
        raise InvalidRequest(f"{name} must be one for each of the {count} prompts, got {len(given)}.")
    return list(given)


def _checked(sampling: SamplingParams) -> SamplingParams:
    """A copy with every type and value checked, as fields may have been set since it was made."""
    try:
        return msgspec.convert(msgspec.to_builtins(sampling), SamplingParams)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidRequest(f"SamplingParams has a field of the wrong type: {error}.") from None


def _refuse(**arguments: object) -> None:
    for name, value in arguments.items():
        if value:
            raise Unsupported(f"'{name}' is not supported; leave it out.")
