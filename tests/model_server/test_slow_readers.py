"""Readers who stop, while the model writes for them: what they are given when they go on."""

from __future__ import annotations

import asyncio
import urllib.request

import grpc.aio

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from tests.eventually import eventually
from tests.model_server.models import CALL_S, METRICS_PORT, WRITER, ModelServer, asked


async def figure(name: str) -> float:
    """What the model server says of itself to Prometheus."""
    url = f"http://127.0.0.1:{METRICS_PORT}/metrics"
    told = (await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=CALL_S).read())).decode()
    return sum(
        float(line.rpartition(" ")[2]) for line in told.splitlines() if line.startswith((f"{name}{{", f"{name} "))
    )


async def test_a_reader_who_stops_is_given_all_log_probabilities_in_messages_that_fit(models: ModelServer) -> None:
    before = await figure("vllm:generation_tokens_total")
    # It takes no more than HTTP/2 has everybody take who says nothing.
    async with models.direct(("grpc.http2.bdp_probe", 0)) as channel:
        call = ModelServiceStub(channel).Generate(asked(max_tokens=3000, logprobs=20), timeout=CALL_S)
        first = await call.read()
        assert isinstance(first, pb.GenerateResponse)

        async def is_written() -> None:
            assert await figure("vllm:generation_tokens_total") >= before + 3000

        await eventually(is_written, within_s=CALL_S)
        answer = [first]
        while (piece := await call.read()) is not grpc.aio.EOF:
            assert isinstance(piece, pb.GenerateResponse)
            answer.append(piece)

    # Of a contract's megabyte: the model of these tests writes no more than one in all.
    assert sum(piece.ByteSize() for piece in answer) > 512 * 1024
    assert max(piece.ByteSize() for piece in answer) < 64 * 1024
    assert sum(piece.token_count for piece in answer) == answer[-1].usage.output_token_count == 3000
    assert all(len(piece.logprobs) == piece.token_count for piece in answer)
    assert [bool(piece.finish_reason) for piece in answer] == [False] * (len(answer) - 1) + [True]
    assert first.provenance.model == WRITER
