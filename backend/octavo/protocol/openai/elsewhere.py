"""What to say of a field that other routes have: what it is called here, or that there is none. Knows names alone.

Only names that are no field of the route. OpenAI's words, as its users know them.
"""


def _moved(route: str, names: dict[str, str]) -> dict[str, str]:
    return {old: f"In {route}, this parameter is called '{new}'." for old, new in names.items()}


def _absent(route: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, f"There is none in {route}; leave it out, or use chat completions, which have it.")


COMPLETIONS = _moved(
    "completions",
    {
        "input": "prompt",
        "max_completion_tokens": "max_tokens",
        "max_output_tokens": "max_tokens",
        "text": "response_format",
        "top_logprobs": "logprobs",
    },
) | _absent("completions", "chat_template_kwargs", "messages", "parallel_tool_calls", "reasoning_effort", "tool_choice", "tools")

CHAT = _moved(
    "chat completions",
    {
        "input": "messages",
        "instructions": "messages",
        "max_output_tokens": "max_completion_tokens",
        "prompt": "messages",
        "reasoning": "reasoning_effort",
        "text": "response_format",
    },
)

RESPONSES = _moved(
    "the Responses API",
    {
        "function_call": "tool_choice",
        "functions": "tools",
        "logprobs": "top_logprobs",
        "max_completion_tokens": "max_output_tokens",
        "max_tokens": "max_output_tokens",
        "messages": "input",
        "reasoning_effort": "reasoning.effort",
        "response_format": "text.format",
        "verbosity": "text.verbosity",
    },
) | _absent("the Responses API", "frequency_penalty", "logit_bias", "n", "presence_penalty", "seed", "stop")
