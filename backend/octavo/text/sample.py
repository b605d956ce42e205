"""``Sample``: one answer while it is written: ids to text, stop strings, what nobody has read yet. Knows no client."""

from collections.abc import Collection

from octavo.engine.messages import EngineOutput, FinishReason, TokenLogprobs
from octavo.sampling import SamplingParams
from octavo.text.detokenizer import Detokenizer
from octavo.text.request import SampleDelta
from octavo.text.stops import StopSet, StopWatch, Tokens
from octavo.text.tokenizer import Tokenizer


class Sample:
    """Takes in an engine's outputs and gives out what is new since the last ``take``.

    ``watched``: stop strings or words are looked for, so that any token may end it.
    ``finish_reason`` is None while it goes on. Once it is set, further outputs are ignored. Unread text, ids and logprobs
    are merged, so what is held is bounded by the answer itself.
    """

    __slots__ = (
        "_cumulative",
        "_detokenizer",
        "_eos",
        "_logprobs",
        "_sampling",
        "_stops",
        "_text",
        "_token_ids",
        "_words",
        "finish_reason",
        "last_output_at",
        "num_tokens",
        "stop_reason",
        "watched",
    )

    def __init__(
        self,
        tokenizer: Tokenizer,
        sampling: SamplingParams,
        stops: StopSet[str] | None,
        eos: frozenset[int],
        markers: Collection[str] = (),
        words: StopSet[Tokens] | None = None,
    ) -> None:
        """``eos``: ids that end a sample without being its ``stop_reason``; ``markers``: see ``Detokenizer``.

        ``words``: token ids that end it when they come one after the other; they are counted, and no part of the text.
        """
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        self.num_tokens = 0
        self.last_output_at: float | None = None
        self.watched = bool(stops or words)
        self._sampling = sampling
        self._eos = eos
        self._detokenizer = Detokenizer(tokenizer, sampling.skip_special_tokens, markers) if sampling.detokenize else None
        self._stops = StopWatch(stops, sampling.include_stop_str_in_output, "") if stops else None
        self._words = StopWatch(words, sampling.include_stop_str_in_output, ()) if words else None
        self._cumulative = None if sampling.logprobs is None else 0.0
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprobs] = []

    def add(self, output: EngineOutput) -> bool:
        """Take in ``output``; True if a stop string or word ended the sample, so that its engine request must be aborted."""
        if self.finish_reason is not None:
            return False
        used = self._read(output)
        self.num_tokens += used
        self._token_ids += output.token_ids[:used]
        if output.logprobs and self._cumulative is not None:
            self._logprobs += output.logprobs[:used]
            self._cumulative += sum(entry.logprobs[0] for entry in output.logprobs[:used])
        stopped = self.finish_reason is not None
        if output.finish is not None and not stopped:
            self._end(output.finish, output.stop_token_id)
        return stopped and output.finish is None

    def add_token(self, token_id: int) -> None:
        """Take in a token that comes with nothing else. Not for a sample that is watched."""
        if self._detokenizer is not None:
            self._text.append(self._detokenizer.push(token_id))
        self._token_ids.append(token_id)
        self.num_tokens += 1

    def take(self) -> SampleDelta:
        """All that is new, which is then forgotten."""
        logprobs = None
        if self._cumulative is not None:
            logprobs, self._logprobs = self._logprobs, []
        text, token_ids = "".join(self._text), self._token_ids
        self._text.clear()
        self._token_ids = []
        return SampleDelta(text, token_ids, self.finish_reason, self.stop_reason, self._cumulative, logprobs)

    def _read(self, output: EngineOutput) -> int:
        """Turn the ids into text; the number of ids up to the end that a stop may have set."""
        silent = output.stop_token_id is not None and not self._sampling.include_stop_str_in_output
        spoken = output.token_ids[:-1] if silent else output.token_ids
        if self.watched:
            for number, token_id in enumerate(spoken, start=1):
                if self._watch(token_id, self.num_tokens + number > self._sampling.min_tokens):
                    return number
        elif self._detokenizer is not None:
            self._text += map(self._detokenizer.push, spoken)
        return len(output.token_ids)

    def _watch(self, token_id: int, armed: bool) -> bool:
        """Read a token, or hold it back while it may belong to a stop word; True if a stop ended the sample."""
        if self._words is None:
            return self._speak((token_id,), armed)
        spoken, word = self._words.push((token_id,), armed)
        if self._speak(spoken, armed):
            return True
        if word is not None:
            self._end(FinishReason.STOP, str([*word]))
        return word is not None

    def _speak(self, token_ids: Tokens, armed: bool) -> bool:
        """Turn ids into text; True if a stop string ended the sample."""
        push = None if self._detokenizer is None else self._detokenizer.push
        return push is not None and any(self._show(push(token_id), armed) for token_id in token_ids)

    def _show(self, text: str, armed: bool) -> bool:
        """Pass text on, as far as the stop strings let it; True if one of them ended the sample."""
        if self._stops is None:
            self._text.append(text)
            return False
        shown, stop = self._stops.push(text, armed)
        self._text.append(shown)
        if stop is None:
            return False
        self.finish_reason, self.stop_reason = FinishReason.STOP.label, stop
        return True

    def _end(self, reason: FinishReason, stop: str | int | None) -> None:
        armed = self.num_tokens > self._sampling.min_tokens
        if self._words is not None and self._speak(self._words.finish(), armed):
            return
        if self._detokenizer is not None and self._show(self._detokenizer.finish(), armed):
            return
        if self._stops is not None:
            self._text.append(self._stops.finish())
        self.finish_reason = reason.label
        ends = self._eos if not self._sampling.ignore_eos else ()
        self.stop_reason = None if stop in ends else stop
