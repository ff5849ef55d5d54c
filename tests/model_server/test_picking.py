"""How one real engine picks tokens, as it is asked to."""

from __future__ import annotations

from typing import Any as Untyped

from llmesh.api.model.v1 import model_pb2 as pb
from tests.model_server.models import ModelServer, asked, pieces


async def test_a_seed_gives_the_same_text_again_and_temperature_nought_the_likeliest(models: ModelServer) -> None:
    async with models.stub() as stub:
        texts = [
            "".join(piece.text for piece in await pieces(stub, request))
            for request in (
                *(asked(max_tokens=20, seed=seed) for seed in (7, 7, 8)),
                *(asked(max_tokens=20, temperature=0) for _ in range(2)),
            )
        ]
        told = await pieces(stub, asked(max_tokens=4, temperature=0, logprobs=2))
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] == texts[4]
    tokens = [token for piece in told for token in piece.logprobs]
    assert len(tokens) == 4
    for token in tokens:
        assert token.picked == token.likeliest[0]
        assert token.likeliest[0].logprob >= token.likeliest[1].logprob


async def test_a_choice_of_the_likeliest_tokens_alone_is_the_likeliest_text(models: ModelServer) -> None:
    async def text(**sampling: Untyped) -> str:
        return "".join(piece.text for piece in await pieces(stub, asked(max_tokens=30, **sampling)))

    async with models.stub() as stub:
        likeliest = await text(temperature=0)
        free, few, first, top = [
            await text(temperature=2, seed=5, **bounds) for bounds in ({}, {"top_k": 2}, {"top_k": 1}, {"top_p": 1e-6})
        ]
    assert first == top == likeliest
    assert len({likeliest, few, free}) == 3


async def test_a_stop_text_ends_the_text_and_is_no_part_of_it(models: ModelServer) -> None:
    async with models.stub() as stub:
        whole = "".join(piece.text for piece in await pieces(stub, asked(max_tokens=60, seed=3)))
        stop = whole[len(whole) // 2 :][:3]
        answer = await pieces(stub, asked(max_tokens=60, seed=3, stop=[stop]))
    assert answer[-1].finish_reason == pb.FINISH_REASON_STOP
    assert "".join(piece.text for piece in answer) == whole[: whole.index(stop)]
