"""``PromptReader``: prompts of any kind to token ids that fit the model. Knows no sampling and no engine. Thread-safe."""

from collections.abc import Sequence

from octavo.errors import InvalidRequest
from octavo.text.admission import Admission, BadPrompt
from octavo.text.request import Conversation, GenerateRequest, Prompt
from octavo.text.tokenizer import Tokenizer

LONG_TEXT = 8192  # characters; about 10 ms of tokenising, the most that one request may hold up the others


class PromptReader:
    """Reads prompts for one loaded model. Whatever is wrong with one of them raises ``InvalidRequest``."""

    def __init__(self, tokenizer: Tokenizer, admission: Admission) -> None:
        """Both of the same model."""
        self._tokenizer, self._admission = tokenizer, admission
        if tokenizer.chat_template is not None:
            tokenizer.chat_template.start()

    def read(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The token ids of each, checked."""
        read = [prompt if isinstance(prompt, list) else self.encode(prompt) for prompt in prompts]
        for token_ids in read:
            self._admission.check_prompt(token_ids)
        return read

    def takes_long(self, prompts: Sequence[Prompt]) -> bool:
        """Whether reading them would hold up an event loop: texts that are long, or a template's process to wait for."""
        if self._tokenizer.chat_template is not None and any(isinstance(prompt, Conversation) for prompt in prompts):
            return True
        return sum(map(_num_characters, prompts)) > LONG_TEXT

    def check_texts(self, prompts: Sequence[Prompt]) -> None:
        """Refuse a text so long that it need not be tokenised to know that it does not fit."""
        for prompt in prompts:
            self._admission.check_characters(_num_characters(prompt), self._tokenizer.longest_token)

    def bad_words(self, request: GenerateRequest) -> list[list[int]]:
        """The token ids of the texts, as vLLM takes them: at the start of a text, and after a space if that is as long.

        Those that come as token ids are taken as they are.
        """
        spelled = [list(word) for word in request.bad_words]
        for word in request.sampling.bad_words:
            bare, spaced = (self._tokenizer.encode(space + word.lstrip(), False) for space in ("", " "))
            spelled.append(bare)
            if spaced[:1] != bare[:1] and len(spaced) == len(bare):
                spelled.append(spaced)
        return [ids for ids in spelled if ids and self._admission.knows(ids)]

    def encode(self, prompt: str | Conversation, add_special_tokens: bool = True) -> list[int]:
        """The token ids of one, however many. ``add_special_tokens``: to a text; a conversation says it itself."""
        if isinstance(prompt, Conversation):
            return self._spelled(prompt)
        return self._tokenizer.encode(prompt, add_special_tokens)

    def _spelled(self, conversation: Conversation) -> list[int]:
        """What the chat template makes of a conversation. The template itself puts what a prompt begins with before it."""
        template = self._tokenizer.chat_template
        if template is None:
            raise BadPrompt("The model has no chat template, so it takes a prompt as text or token ids and no messages.")
        try:
            text = template.render(conversation.messages, conversation.variables, conversation.continue_final_message)
        except InvalidRequest as error:
            raise BadPrompt(str(error)) from error
        self._admission.check_characters(len(text), self._tokenizer.longest_token)
        return self._tokenizer.encode(text, add_special_tokens=conversation.add_special_tokens)


def _num_characters(prompt: Prompt) -> int:
    match prompt:
        case str():
            return len(prompt)
        case Conversation():
            return prompt.num_characters
        case _:
            return 0
