"""Clients that behave badly: whatever they leave behind is taken back. Who never reads is in ``test_limits``."""

import subprocess
import sys
from pathlib import Path

from calls import Stream, infer_request, is_final
from server import Server

STREAMS = 1000
VANISHING = f"""
import asyncio, sys
import grpc
sys.path.insert(0, {str(Path(__file__).parent)!r})
from calls import infer_request
from tritonclient.grpc import service_pb2_grpc

async def main():
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelStreamInfer() for _ in range({STREAMS})]
        await asyncio.gather(*(call.write(infer_request(max_tokens=1900)) for call in calls))
        await calls[0].read()
        print("open", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_client_that_opens_1000_streams_and_vanishes_leaves_nothing_behind(server: Server) -> None:
    before = server.metric("nv_inference_request_failure", model="tiny", reason="CANCELED")
    client = subprocess.Popen([sys.executable, "-c", VANISHING, server.grpc], stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "open\n"
        server.wait_until(lambda: server.in_flight() >= STREAMS, "the requests to arrive", seconds=60)
    finally:
        client.kill()
        client.communicate()
    server.wait_until_free()
    assert server.metric("nv_inference_request_failure", model="tiny", reason="CANCELED") == before + STREAMS
    with Stream(server.grpc) as stream:
        assert is_final(stream.send(infer_request()).rest()[-1])
