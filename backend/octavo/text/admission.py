"""What a front end can refuse before an engine sees it: prompt lengths, token ids, limits of the loaded model."""

from collections.abc import Collection, Sequence

from octavo.config import DEFAULT_LIMITS, RequestLimits
from octavo.engine.messages import EngineInfo
from octavo.errors import InvalidRequest
from octavo.sampling import MAX_BAD_WORD_CHARACTERS, MAX_BAD_WORDS, SamplingParams
from octavo.text.request import MAX_PROMPTS, MAX_SAMPLES_OF_ALL, GenerateRequest


class BadPrompt(InvalidRequest):
    """It is the prompt that cannot be served, whatever the request calls it."""


class PromptTooLong(BadPrompt):
    """The prompt leaves no room for an answer."""


class Admission:
    """The checks that an engine's ``info`` and a server's ``limits`` allow. Each raises ``InvalidRequest`` with the figures."""

    def __init__(self, info: EngineInfo, limits: RequestLimits = DEFAULT_LIMITS) -> None:
        """Limits as the engine reports them, and those of the server."""
        self._info, self._limits = info, limits
        self._longest_prompt = info.max_model_len - 1

    def check(self, request: GenerateRequest) -> None:
        """All but the prompts themselves."""
        self._check_sampling(request.sampling)
        self._check_numbers(len(request.prompts), request.sampling.n)
        self._check_words("stop", request.stop_words, self._limits.stops, self._limits.stop_characters)
        self._check_words("bad", request.bad_words, MAX_BAD_WORDS - len(request.sampling.bad_words), MAX_BAD_WORD_CHARACTERS)

    def _check_sampling(self, sampling: SamplingParams) -> None:
        """Token ids of the vocabulary only, no more logprobs than the engine gives, samples and stop strings within limits."""
        self._check_ids("stop_token_ids", sampling.stop_token_ids)
        self._check_ids("logit_bias", sampling.logit_bias)
        most = self._info.max_logprobs
        for name, value in (("logprobs", sampling.logprobs), ("prompt_logprobs", sampling.prompt_logprobs)):
            if value is not None and value > most:
                raise InvalidRequest(f"{name} must be at most {most}, got {value}.")
        limits = self._limits
        if sampling.n > limits.samples:
            raise InvalidRequest(f"n must be between 1 and {limits.samples}, got {sampling.n}.")
        if len(sampling.stop) > limits.stops or any(len(stop) > limits.stop_characters for stop in sampling.stop):
            longest = limits.stop_characters
            raise InvalidRequest(f"stop must hold at most {limits.stops} strings of 1 to {longest} characters each.")
        if sampling.stop and not sampling.detokenize:
            raise InvalidRequest("stop needs detokenize to be true, because stop strings are searched in the text.")

    def check_prompt(self, token_ids: list[int]) -> None:
        """At least one token, room for one more, and all of them in the vocabulary."""
        if not token_ids:
            raise BadPrompt("The prompt must hold at least one token.")
        if len(token_ids) > self._longest_prompt:
            self._refuse_length(str(len(token_ids)))
        self._check_ids("The prompt", token_ids, BadPrompt)

    def knows(self, token_ids: list[int]) -> bool:
        """Whether the model can make all of them."""
        return max(token_ids) < self._info.vocab_size

    def _check_numbers(self, prompts: int, samples: int) -> None:
        """At least one prompt, and not too many of them or of samples of them all."""
        if not 1 <= prompts <= MAX_PROMPTS:
            raise BadPrompt(f"A request must hold between 1 and {MAX_PROMPTS} prompts, got {prompts}.")
        if prompts * samples > MAX_SAMPLES_OF_ALL:
            asked = prompts * samples
            raise InvalidRequest(f"A request must ask for at most {MAX_SAMPLES_OF_ALL} samples of all its prompts, got {asked}.")

    def check_characters(self, count: int, longest_token: int) -> None:
        """Refuse a text of ``count`` characters if it need not be tokenised to know that it does not fit."""
        at_least = -(-count // longest_token)
        if at_least > self._longest_prompt:
            self._refuse_length(f"at least {at_least}")

    def _check_words(self, kind: str, words: Sequence[Sequence[int]], most: int, longest: int) -> None:
        """Words that come as token ids. No more of them, and no longer ones, than of words that come as text."""
        if len(words) > most or any(not 0 < len(word) <= longest for word in words):
            raise InvalidRequest(f"A request must hold at most {most} {kind} words of 1 to {longest} token ids each.")
        for word in words:
            self._check_ids(f"The {kind} words", word)

    def _check_ids(self, what: str, token_ids: Collection[int], refusal: type[InvalidRequest] = InvalidRequest) -> None:
        vocab = self._info.vocab_size
        if token_ids and not (min(token_ids) >= 0 and max(token_ids) < vocab):
            raise refusal(f"{what} must hold token ids between 0 and {vocab - 1}, the model's vocabulary.")

    def _refuse_length(self, length: str) -> None:
        raise PromptTooLong(
            f"The prompt holds {length} tokens, but the model takes at most {self._info.max_model_len} with the answer, "
            f"so at most {self._longest_prompt}."
        )
