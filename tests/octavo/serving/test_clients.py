"""Clients that platform teams have, each the real one, as far as no other file tests it (``tritonclient.http`` has its own)."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from server import Server
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException

GREEDY = {"max_tokens": 9, "temperature": "0", "ignore_eos": True}
UNKNOWN = "Request for unknown model: 'nope' is not found"
PERF_ANALYZER = Path(__file__).parents[3] / ".venv-triton" / "perf_analyzer" / "perf_analyzer"


def inputs(prompt: str) -> list[tritonclient.grpc.InferInput]:
    text, stream = tritonclient.grpc.InferInput("text_input", [1], "BYTES"), tritonclient.grpc.InferInput("stream", [1], "BOOL")
    text.set_data_from_numpy(np.array([prompt.encode()], dtype=object))
    stream.set_data_from_numpy(np.array([True]))
    return [text, stream]


def test_tritonclient_grpc_for_asyncio(server: Server) -> None:
    async def requests() -> AsyncIterator[dict[str, object]]:
        for number in range(3):
            yield {"model_name": "tiny", "inputs": inputs(f"{number}"), "request_id": f"{number}", "parameters": GREEDY}

    async def ask() -> None:
        async with aio.InferenceServerClient(server.grpc) as client:
            assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("tiny")
            assert (await client.get_model_metadata("tiny")).name == "tiny"
            assert (await client.get_model_config("tiny", as_json=True))["config"]["name"] == "tiny"
            assert (await client.get_inference_statistics("tiny")).model_stats[0].name == "tiny"
            whole = {}
            for number in range(3):
                (text,) = (await client.infer("tiny", inputs(f"{number}")[:1], parameters=GREEDY)).as_numpy("text_output")
                whole[f"{number}"] = text.decode()
            pieces = {identity: identity for identity in whole}
            final = set()
            async for result, error in client.stream_infer(requests()):
                assert error is None
                response = result.get_response()
                pieces[response.id] += "".join(piece.decode() for piece in result.as_numpy("text_output"))
                if response.parameters["triton_final_response"].bool_param:
                    final.add(response.id)
            assert (pieces, final) == (whole, set(whole))
            with pytest.raises(InferenceServerException, match=UNKNOWN):
                await client.infer("nope", inputs("hello")[:1])

    asyncio.run(ask())


def test_kserve_over_grpc_and_rest(server: Server) -> None:
    script = Path(__file__).with_name("kserve_calls.py")
    command = [sys.executable, str(script), server.grpc, server.http]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    client = server.client()
    (text,) = client.infer("tiny", inputs("hello")[:1], parameters=GREEDY).as_numpy("text_output")
    client.close()
    for protocol, status in (("grpc", "NOT_FOUND"), ("rest", 404)):
        assert answers[protocol] == {
            "live": True,
            "ready": [True, True, False],
            "refused": [status, UNKNOWN],
            "answers": [["r", [text.decode()], [9]]] * 2,
        }


@pytest.mark.skipif(not PERF_ANALYZER.exists(), reason="`make perf-analyzer` gets it")
def test_perf_analyzer_over_grpc(server: Server, tmp_path: Path) -> None:
    """Metadata, configuration and statistics as it wants them, then streams. (Over HTTP it drives no decoupled model.)"""
    request = {"text_input": ["hello"], "stream": [True], "sampling_parameters": ['{"max_tokens": 9, "ignore_eos": true}']}
    counts = measured(tmp_path, request, "-m", "tiny", "-u", server.grpc, "-i", "grpc", "--streaming")
    assert len(counts) >= 10
    assert sum(counts) > len(counts)


@pytest.mark.skipif(not PERF_ANALYZER.exists(), reason="`make perf-analyzer` gets it")
def test_perf_analyzer_over_the_openai_api(server: Server, tmp_path: Path) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9, "stream": True}
    flags = ("-i", "http", "--service-kind", "openai", "--endpoint", "v1/chat/completions")
    counts = measured(tmp_path, {"payload": [body]}, "-m", "tiny", "-u", server.http, *flags)
    assert len(counts) >= 10
    assert sum(counts) > len(counts)


def measured(folder: Path, request: dict[str, object], *flags: str) -> list[int]:
    """The number of responses to each request that perf_analyzer sent, at least 10, two of them at a time."""
    data, profile = folder / "data.json", folder / "profile.json"
    data.write_text(json.dumps({"data": [request]}))
    command = [str(PERF_ANALYZER), *flags, "--async", "--input-data", str(data), "--profile-export-file", str(profile)]
    command += ["--concurrency-range", "2", "--request-count", "10"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(PERF_ANALYZER.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (experiment,) = json.loads(profile.read_text())["experiments"]
    return [len(sent["response_timestamps"]) for sent in experiment["requests"]]
