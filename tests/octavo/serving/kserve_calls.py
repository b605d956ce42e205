"""A script: all that the two inference clients of the KServe SDK can ask, as one JSON object. It imports no tritonclient."""

import asyncio
import json
import sys

import httpx
import numpy as np
from grpc.aio import AioRpcError
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

GREEDY = {"max_tokens": 9, "temperature": "0", "ignore_eos": True}


def request(model: str, binary: bool) -> InferRequest:
    text, asked = InferInput("text_input", [1], "BYTES"), InferInput("return_num_output_tokens", [1], "BOOL")
    text.set_data_from_numpy(np.array([b"hello"], dtype=object), binary_data=binary)
    asked.set_data_from_numpy(np.array([True]), binary_data=binary)
    return InferRequest(model, [text, asked], request_id="r", parameters=dict(GREEDY))


async def over_grpc(address: str) -> dict[str, object]:
    async with InferenceGRPCClient(address) as client:
        answers = [await client.infer(request("tiny", binary)) for binary in (False, True)]
        try:
            await client.infer(request("nope", binary=True))
        except AioRpcError as error:
            refused = [error.code().name, error.details()]
        ready = [await client.is_model_ready(name) for name in ("tiny", "nope")]
        return {
            "live": await client.is_server_live(),
            "ready": [await client.is_server_ready(), *ready],
            "refused": refused,
            "answers": [[answer.id, *(output.as_numpy().tolist() for output in answer.outputs)] for answer in answers],
        }


async def over_rest(address: str) -> dict[str, object]:
    url = f"http://{address}"
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        answers = [await client.infer(url, request("tiny", binary), model_name="tiny") for binary in (False, True)]
        try:
            await client.infer(url, request("nope", binary=False), model_name="nope")
        except httpx.HTTPStatusError as error:
            refused = [error.response.status_code, error.response.json()["error"]]
        ready = [await client.is_model_ready(url, name) for name in ("tiny", "nope")]
        return {
            "live": await client.is_server_live(url),
            "ready": [await client.is_server_ready(url), *ready],
            "refused": refused,
            "answers": [[answer.id, *(output.as_numpy().tolist() for output in answer.outputs)] for answer in answers],
        }


async def main(grpc: str, http: str) -> None:
    print(json.dumps({"grpc": await over_grpc(grpc), "rest": await over_rest(http)}, default=bytes.decode))


asyncio.run(main(*sys.argv[1:]))
