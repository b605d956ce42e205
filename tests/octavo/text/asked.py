"""Requests as a protocol makes them."""

from octavo.sampling import SamplingParams
from octavo.text.request import GenerateRequest


def ask(prompt="The capital", stream=True, **sampling) -> GenerateRequest:
    return GenerateRequest(model="m", version=1, prompts=[prompt], stream=stream, sampling=SamplingParams(**sampling))
