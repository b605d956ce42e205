"""A request is ended by its id by whoever sent it, and by nobody else."""

import threading

import grpc
from calls import Stream, add_flag, infer_request, is_final
from http_calls import Reply, post
from server import Server
from tritonclient.grpc import service_pb2, service_pb2_grpc

MINE, THEIRS = (("authorization", "Bearer mine"),), (("authorization", "Bearer theirs"),)


def stop(server: Server, request_id: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
    request = service_pb2.ModelInferRequest(model_name="tiny", id=request_id)
    add_flag(request, "stop", True)
    with grpc.insecure_channel(server.grpc) as channel:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30, metadata=metadata)


def test_no_other_token_ends_it(server: Server) -> None:
    with Stream(server.grpc, metadata=list(MINE)) as stream:
        next(stream.send(infer_request("x", 1900, "mine")))
        for metadata in ((), THEIRS):
            stop(server, "mine", metadata)
        assert not any(next(stream).error_message for _ in range(200))
        stop(server, "mine", MINE)
        last = stream.rest()[-1]
        assert is_final(last) and last.error_message == "Request was cancelled"


def test_no_request_of_openai_s_api_is_ended(server: Server) -> None:
    replies: list[Reply] = []
    body = {"model": "tiny", "prompt": "x", "max_tokens": 600, "ignore_eos": True}
    asking = threading.Thread(
        target=lambda: replies.append(post(server, "/v1/completions", body, {"x-request-id": "named"})), daemon=True
    )
    asking.start()
    server.wait_until(lambda: server.in_flight() > 0, "the request to run")
    for name in ("named", "cmpl-named"):
        stop(server, name)
    asking.join(30)
    assert replies[0].json["usage"]["completion_tokens"] == 600
