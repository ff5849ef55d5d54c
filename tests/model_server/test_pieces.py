"""How an engine of vLLM's ends a text, and what its reader is told of that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any as Untyped

import pytest

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import Unavailable
from model_server.engine import NoGrammarError
from model_server.vllm_engine import piece_of


def ended(why: str | None) -> Untyped:
    """An output as vLLM has it."""
    part = SimpleNamespace(text="a", token_ids=[7], finish_reason=why, logprobs=None)
    return SimpleNamespace(outputs=[part], num_cached_tokens=None)


@pytest.mark.parametrize(
    ("why", "finish"),
    [
        (None, pb.FINISH_REASON_UNSPECIFIED),
        ("stop", pb.FINISH_REASON_STOP),
        ("length", pb.FINISH_REASON_LENGTH),
    ],
)
def test_a_piece_says_whether_and_why_the_text_ends(why: str | None, finish: pb.FinishReason.ValueType) -> None:
    piece = piece_of(ended(why), 0, compiling=True)
    assert (piece.text, piece.token_count, piece.finish) == ("a", 1, finish)


def test_a_grammar_that_does_not_compile_is_no_engine_that_died() -> None:
    with pytest.raises(NoGrammarError, match="does not compile"):
        piece_of(ended("error"), 0, compiling=True)


@pytest.mark.parametrize(("why", "reason"), [("error", "ENGINE_FAILED"), ("abort", "ENGINE_DIED")])
def test_a_text_that_the_engine_gives_up_may_be_asked_for_again(why: str, reason: str) -> None:
    with pytest.raises(Unavailable) as told:
        piece_of(ended(why), 0, compiling=False)
    assert told.value.reason == reason
    assert told.value.retry_after_s
