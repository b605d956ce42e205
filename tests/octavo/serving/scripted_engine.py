"""An engine process that says each prompt once more, token by token, and then stops: any answer that a test likes, end to end."""

import logging
import os

from octavo.bench.source import Answer, TokenSource
from octavo.engine import process
from octavo.engine.messages import EngineRequest, FinishReason


class Script(TokenSource):
    """See above. ``max_tokens`` may cut an answer, which then ends for that reason."""

    def answer(self, request: EngineRequest) -> Answer:
        tokens = request.prompt_token_ids
        count = min(len(tokens), request.sampling.max_tokens or len(tokens))
        return Answer(request.id, tokens, count, 0, FinishReason.STOP if count == len(tokens) else FinishReason.LENGTH)


if __name__ == "__main__":
    code = process.main(Script)
    logging.shutdown()
    os._exit(code)
