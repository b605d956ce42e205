"""Streams: the final flag, ids, errors in and out of band, cancel, deadline, half-close."""

import json
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from conformance.cases import Case
from conformance.cases.infer import both
from conformance.client import Client, Tensor, infer

AS_STATUS = [("triton_grpc_error", "true")]
# Those of Triton's error codes that a model's failure can have.
CODES = ("INTERNAL", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "CANCELLED")


# So many that no server has them all ready before it can write the first.
TOKENS = 100


def llm(id: str = "a", tokens: int = TOKENS, stream: bool = True, **more: Any) -> pb.ModelInferRequest:
    """A prompt for a language model. ``more``: parameters, and flags by the names of their tensors, from ``flag_`` on."""
    flags = {name.removeprefix("flag_"): more.pop(name) for name in list(more) if name.startswith("flag_")}
    sampling = json.dumps({"temperature": 0, "ignore_eos": True, "max_tokens": tokens}).encode()
    tensors = [Tensor("text_input", "BYTES", [1], [b"hello"]), Tensor("sampling_parameters", "BYTES", [1], [sampling])]
    tensors += [Tensor(name, "BOOL", [1], [value]) for name, value in {"stream": stream, **flags}.items()]
    return infer("llm", *tensors, id=id, **more)


def _repeat(*values: int, id: str = "r", error: str = "", delay: int = 0, **more: Any) -> pb.ModelInferRequest:
    tensors = [Tensor("IN", "INT32", [len(values)], values)]
    tensors += [Tensor("ERROR", "BYTES", [1], [error.encode()])] if error else []
    tensors += [Tensor("DELAY_MS", "INT32", [1], [delay])] if delay else []
    return infer("repeat", *tensors, id=id, **more)


def _bad(**fields: Any) -> pb.ModelInferRequest:
    request = llm("bad")
    for name, value in fields.items():
        if name == "shape":
            request.inputs[0].shape[:] = value
        elif name == "raw":
            request.raw_input_contents[0] = value
        elif name == "version":
            request.model_version = value
        else:
            setattr(request.inputs[0], name, value)
    return request


ALL_FLAGS = {
    f"flag_return_{name}": True for name in ("finish_reason", "num_input_tokens", "num_output_tokens", "cumulative_logprob")
}
EMPTY_FINAL = {"triton_enable_empty_final_response": True}
unknown = infer("nope", id="unknown")

STREAMS: dict[str, dict[str, Any]] = {
    "nothing": {"requests": []},
    "tokens": {"requests": [llm()]},
    "one token": {"requests": [llm(tokens=1)]},
    "tokens, empty final response": {"requests": [llm(**EMPTY_FINAL)]},
    "tokens in one response": {"requests": [llm(stream=False)]},
    "tokens without the prompt in one response": {"requests": [llm(stream=False, flag_exclude_input_in_output=True)]},
    "tokens after the prompt": {"requests": [llm(flag_exclude_input_in_output=False)]},
    "tokens with all counts": {"requests": [llm(tokens=2, stream=False, **ALL_FLAGS)]},
    "tokens with reasons": {"requests": [llm(flag_return_finish_reason=True)]},
    "tokens with null logprobs": {"requests": [llm(flag_return_logprobs=True)]},
    "tokens, only the text": {"requests": [llm(flag_return_finish_reason=True, outputs=["text_output"])]},
    "tokens, only the reason": {"requests": [llm(stream=False, flag_return_finish_reason=True, outputs=["finish_reason"])]},
    "tokens of an unknown output": {"requests": [llm(outputs=["nope"])]},
    "tokens without an id": {"requests": [llm("")]},
    "no prompt": {"requests": [infer("llm", id="bad")]},
    "prompt of the wrong shape": {"requests": [_bad(shape=[2])]},
    "prompt of too many dimensions": {"requests": [_bad(shape=[1, 1, 1])]},
    "prompt of the wrong type": {"requests": [_bad(datatype="INT32")]},
    "prompt of an unknown name": {"requests": [_bad(name="prompt")]},
    "prompt cut": {"requests": [_bad(raw=b"\x05\0\0\0he")]},
    "prompt for an unknown version": {"requests": [_bad(version="7")]},
    "prompt for a version that is none": {"requests": [_bad(version="abc")]},
    "an unknown model": {"requests": [unknown]},
    "an unknown model, then a good request": {"requests": [unknown, _repeat(1, 2)], "one_by_one": True},
    "an unknown model, as status": {"requests": [unknown, _repeat(1, 2)], "metadata": AS_STATUS, "one_by_one": True},
    "a reserved parameter": {"requests": [_repeat(1, triton_nope=1)]},
    "an empty final response of the wrong type": {"requests": [_repeat(1, triton_enable_empty_final_response="yes")]},
    "an unsigned parameter": {"requests": [_repeat(1, u=pb.InferParameter(uint64_param=1))]},
    "responses": {"requests": [_repeat(5, 6, 7)]},
    "responses, empty final response": {"requests": [_repeat(5, 6, 7, **EMPTY_FINAL)]},
    "responses of two requests": {"requests": [_repeat(1, 2, 3, id="A", delay=30), _repeat(4, 5, 6, id="B", delay=30)]},
    "responses after half-close": {"requests": [_repeat(1, 2, 3, delay=100)]},
    "an error without a response": {"requests": [_repeat(error="INTERNAL")]},
    "an error after responses": {"requests": [_repeat(1, 2, error="INTERNAL")]},
    "an error after responses, empty final response": {"requests": [_repeat(1, 2, error="INTERNAL", **EMPTY_FINAL)]},
    "an error, then a good request": {"requests": [_repeat(error="INTERNAL", id="bad"), _repeat(1, id="good")], "one_by_one": True},
    **{f"error {code}": {"requests": [_repeat(1, error=code)]} for code in CODES},
    "a model that is not decoupled": {"requests": [both(id="1"), both(id="2")]},
    "a model that is not decoupled, empty final response": {"requests": [both(id="1", **EMPTY_FINAL)]},
    "bytes that are no request": {"requests": [b"\xff\xff\xff"]},
    "cancel": {"requests": [_repeat(*range(100), delay=20)], "stop_after": 2},
    "after a cancel": {"requests": [_repeat(1)]},
}
# A real Triton may crash some time after such a stream, so these come last.
AS_STATUS_STREAMS: dict[str, dict[str, Any]] = {
    "tokens after the prompt, as status": {"requests": [llm(flag_exclude_input_in_output=False)], "metadata": AS_STATUS},
    "prompt cut, as status": {"requests": [_bad(raw=b"\x05\0\0\0he")], "metadata": AS_STATUS},
    **{f"error {code}, as status": {"requests": [_repeat(1, error=code)], "metadata": AS_STATUS} for code in CODES},
}


def _deadline(client: Client) -> dict[str, Any]:
    """How many messages come before the time is up is chance, and the text is the client's own."""
    ended = client.stream(_repeat(*range(100), delay=20), timeout=0.5)
    return {"code": ended["code"], "messages": bool(ended["messages"])}


def _same_id(client: Client) -> dict[str, Any]:
    """Which of two requests of one id a message belongs to cannot be told, but both have an end."""
    ended = client.stream(llm("same"), _repeat(1, 2, id="same", delay=20))
    parameters = [message["infer_response"]["parameters"] for message in ended["messages"]["same"]]
    return {"code": ended["code"], "ends": sum(said["triton_final_response"]["bool_param"] for said in parameters)}


def _stream(options: dict[str, Any]) -> Case:
    return lambda client: client.stream(*options["requests"], **{key: value for key, value in options.items() if key != "requests"})


CASES: dict[str, Case] = {
    **{f"stream: {name}": _stream(options) for name, options in STREAMS.items()},
    "stream: deadline": _deadline,
    "stream: two requests of one id": _same_id,
}
LAST_CASES: dict[str, Case] = {f"stream: {name}": _stream(options) for name, options in AS_STATUS_STREAMS.items()}
