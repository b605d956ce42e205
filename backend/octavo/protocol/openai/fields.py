"""Fields that every generating request has, and what is asked of the sampler by them. Knows no prompt and no answer.

Whatever a client can name is a field of a struct here: taken, taken without effect (``IGNORED``) or refused (``REFUSED``). What
is no field is refused too, so nothing is ignored that ``docs/openai.md`` does not call so.
"""

from typing import Any, ClassVar, Literal

import msgspec

from octavo.errors import InvalidRequest, OctavoError
from octavo.protocol.openai.errors import FieldError, about_prompt
from octavo.protocol.parameters import MAX_SALT_CHARACTERS
from octavo.protocol.sampling_fields import MAX_STOP_TOKEN_IDS, sampling_params
from octavo.sampling import SamplingParams
from octavo.structured_outputs import StructuredOutputsParams
from octavo.text.admission import BadPrompt

MAX_ID_CHARACTERS = 256
# Names of users, sessions and applications, which say nothing of what is to be generated.
IGNORED = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "session_id", "user"})
# What is not served, each with the values that ask for nothing and are therefore accepted, as null is.
REFUSED: dict[str, tuple[Any, ...]] = {
    # OpenAI's, of chat completions and responses
    "access_programs": (),
    "audio": (),
    "background": (False,),
    "background_options": (),
    "context_management": ([],),
    "conversation": (),
    "function_call": ("none",),
    "functions": ([],),
    "image": (),
    "max_tool_calls": (),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "previous_response_id": (),
    "prompt": (),  # of responses
    "prompt_cache_options": (),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "truncation": ("disabled",),
    "verbosity": ("medium",),
    "web_search_options": (),
    # OpenAI's, of completions
    "best_of": (1,),
    "suffix": ("",),
    # vLLM's
    "allowed_token_ids": ([],),
    "chat_template": (),
    "ec_transfer_params": ({},),
    "echo": (False,),  # of chat completions
    "guided_decoding_backend": (),
    "guided_whitespace_pattern": (),
    "kv_transfer_params": ({},),
    "length_penalty": (1,),
    "logprob_token_ids": (),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "prompt_embeds": (),
    "repetition_detection": (),
    "return_mm_kwargs": (True,),
    "return_prompt_text": (False,),
    "return_token_offsets": (False,),
    "routed_experts_prompt_start": (0,),
    "spaces_between_special_tokens": (True,),
    "stream_interval": (1,),
    "structural_tag": (),
    "thinking_token_budget": (-1,),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "watermarking": (False,),
}
_WHY = {
    "chat_template": "A request may not bring its own chat_template: the model's own is used; leave it out.",
    "suffix": "suffix is not supported: the models that are served complete a text at its end; leave it out.",
    "previous_response_id": "previous_response_id is not supported, because nothing is kept; send the whole conversation as input.",
    "conversation": "conversation is not supported, because none is kept; send the whole conversation as input.",
    "store": "store must be false or left out, because nothing is kept.",
}
_LARGEST_NEUTRAL = 64
_SAMPLING = (
    "n", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed", "stop",
    "stop_token_ids", "bad_words", "include_stop_str_in_output", "min_tokens", "max_tokens", "ignore_eos", "logit_bias",
    "prompt_logprobs", "skip_special_tokens",
)  # fmt: skip
_GUIDED = ("choice", "grammar", "json", "regex")
NOTHING = msgspec.Raw()


class Generating(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be said in every request for an answer, vLLM's fields included."""

    PROMPT: ClassVar[str]  # the field that holds it
    model: str
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    priority: int | None = None
    cache_salt: str | None = None
    request_id: str | None = None
    session_id: str | None = None
    structured_outputs: dict[str, Any] | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None

    allowed_token_ids: msgspec.Raw = NOTHING
    ec_transfer_params: msgspec.Raw = NOTHING
    guided_decoding_backend: msgspec.Raw = NOTHING
    guided_whitespace_pattern: msgspec.Raw = NOTHING
    kv_transfer_params: msgspec.Raw = NOTHING
    length_penalty: msgspec.Raw = NOTHING
    logprob_token_ids: msgspec.Raw = NOTHING
    repetition_detection: msgspec.Raw = NOTHING
    return_mm_kwargs: msgspec.Raw = NOTHING
    return_token_offsets: msgspec.Raw = NOTHING
    routed_experts_prompt_start: msgspec.Raw = NOTHING
    spaces_between_special_tokens: msgspec.Raw = NOTHING
    stream_interval: msgspec.Raw = NOTHING
    structural_tag: msgspec.Raw = NOTHING
    thinking_token_budget: msgspec.Raw = NOTHING
    truncate_prompt_tokens: msgspec.Raw = NOTHING
    truncation_side: msgspec.Raw = NOTHING
    use_beam_search: msgspec.Raw = NOTHING
    vllm_xargs: msgspec.Raw = NOTHING
    watermarking: msgspec.Raw = NOTHING

    def check(self) -> None:
        """Refuse what is not served, by name. Raises ``FieldError``."""
        check_refused(self)
        _check_length("cache_salt", self.cache_salt, MAX_SALT_CHARACTERS)
        _check_length("request_id", self.request_id, MAX_ID_CHARACTERS)
        if not -(2**63) <= (self.priority or 0) < 2**63:
            raise FieldError("priority must be an integer of at most 64 bits.", "priority", "invalid_value")
        if len(self.stop_token_ids or ()) > MAX_STOP_TOKEN_IDS:
            text = f"stop_token_ids must hold at most {MAX_STOP_TOKEN_IDS} token ids."
            raise FieldError(text, "stop_token_ids", "invalid_value")

    def sampling(self, **settled: Any) -> SamplingParams:
        """What is asked of the sampler; ``settled`` counts in place of the fields of those names. Raises ``InvalidRequest``."""
        given = {name: value for name in _SAMPLING if (value := getattr(self, name, None)) is not None}
        return SamplingParams(**{"structured_outputs": self.structure()} | given | settled)

    def structure(self) -> StructuredOutputsParams | None:
        """What the answer must look like. Raises ``InvalidRequest``."""
        wishes = self._wishes()
        if len(wishes) > 1:
            raise InvalidRequest("The request must say once what its answer has to look like, not in several fields.")
        return sampling_params({"structured_outputs": wishes[0][1]}).structured_outputs if wishes else None

    def _wishes(self) -> list[tuple[str, dict[str, Any]]]:
        """What is asked for as ``structured_outputs`` would, and by which field."""
        guided = [(f"guided_{kind}", {kind: value}) for kind in _GUIDED if (value := getattr(self, f"guided_{kind}")) is not None]
        own, form = self.structured_outputs, self._format()
        return [*guided, *([("structured_outputs", own)] if own else []), *([form] if form else [])]

    def _format(self) -> tuple[str, dict[str, Any]] | None:
        """The route's own field for that, and what it asks for as ``structured_outputs`` would."""
        return None

    def field(self, option: str) -> str:
        """What the request calls an option of the sampler."""
        return option

    def named(self, error: OctavoError) -> OctavoError:
        """``error`` with the field that its text begins with, under the name that the request has for it, or the prompt's."""
        if isinstance(error, BadPrompt):
            return about_prompt(error, self.PROMPT)
        word, _, rest = str(error).partition(" ")
        # Grammars are told of by their kind.
        name = self._form_field() if word.startswith("structured_outputs.") else self.field(word)
        if isinstance(error, FieldError) or not isinstance(error, InvalidRequest) or name not in self.__struct_fields__:
            return error
        return FieldError(f"{name} {rest}", name, "invalid_value")

    def _form_field(self) -> str:
        """The field that says what the answer must look like."""
        return next((name for name, _ in self._wishes()), "tools")


class EventOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How events are padded: not at all."""

    include_obfuscation: bool | None = None


class StreamOptions(EventOptions, kw_only=True, forbid_unknown_fields=True):
    """How a stream tells of its tokens; ``continuous_usage_stats`` is vLLM's."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class SchemaFormat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A JSON schema by OpenAI's rules; it is always kept to, ``strict`` or not."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How an answer is to be spelled."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class Completing(Generating, kw_only=True, forbid_unknown_fields=True):
    """What completions and chat completions have in common."""

    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    max_tokens: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream_options: StreamOptions | None = None
    add_special_tokens: bool | None = None
    prompt_logprobs: int | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    response_format: ResponseFormat | None = None

    def _format(self) -> tuple[str, dict[str, Any]] | None:
        wish = self.response_format
        if wish is None or wish.type == "text":
            return None
        if wish.type == "json_object":
            return "response_format", {"json_object": True}
        if wish.json_schema is None:
            text = "response_format.json_schema must be there if response_format.type is json_schema."
            raise FieldError(text, "response_format", "invalid_value")
        return "response_format", {"json": wish.json_schema.schema}

    def check(self) -> None:
        """Refuse what is not served or does not go together."""
        super().check()
        check_stream_options(self.stream_options, bool(self.stream))
        if self.prompt_logprobs is not None and self.stream:
            raise FieldError("prompt_logprobs must be left out if stream is true.", "prompt_logprobs", "invalid_value")


def check_refused(request: msgspec.Struct) -> None:
    """Refuse what is not served, by name. Raises ``FieldError``."""
    for name in request.__struct_fields__:
        value = getattr(request, name)
        if isinstance(value, msgspec.Raw) and value is not NOTHING:
            _refuse_unless_neutral(name, value)


def check_stream_options(options: EventOptions | None, stream: bool) -> None:
    """Options are for streams, and no padding is sent."""
    if options is not None and not stream:
        raise FieldError("stream_options must be left out unless stream is true.", "stream_options", "invalid_value")
    if options is not None and options.include_obfuscation:
        text = "stream_options.include_obfuscation must be false or left out: no padding is sent."
        raise FieldError(text, "stream_options", "unsupported_parameter")


def _refuse_unless_neutral(name: str, raw: msgspec.Raw) -> None:
    if len(memoryview(raw)) <= _LARGEST_NEUTRAL and _is_neutral(raw, REFUSED[name]):
        return
    text = _WHY.get(name, f"Unsupported parameter: '{name}' is not supported by this server; leave it out.")
    raise FieldError(text, name, "unsupported_parameter")


def _is_neutral(raw: msgspec.Raw, neutral: tuple[Any, ...]) -> bool:
    """Whether a value is null or one of ``neutral``; members that are null ask for nothing."""
    try:
        value = msgspec.json.decode(raw)
    except ValueError:  # a number out of range, or a text that is none
        return False
    if isinstance(value, dict):
        value = {name: member for name, member in value.items() if member is not None}
    # To Python, but not to JSON, true is 1.
    return value is None or any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)


def _check_length(name: str, value: str | None, most: int) -> None:
    if value is not None and not 0 < len(value) <= most:
        raise FieldError(f"{name} must have between 1 and {most} characters.", name, "invalid_value")
