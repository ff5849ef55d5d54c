"""How an engine of vLLM's ends a text, and what its reader is told of that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any as Untyped

import pytest

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import Unavailable
from model_server.engine import NoGrammarError
from model_server.vllm_pieces import pieces_of


def ended(why: str | None) -> Untyped:
    """An output as vLLM has it."""
    return written("a", [7], why)


def written(text: str, tokens: list[int], why: str | None, logprobs: Untyped = None) -> Untyped:
    """An output as vLLM has it."""
    part = SimpleNamespace(text=text, token_ids=tokens, finish_reason=why, logprobs=logprobs)
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
    [piece] = pieces_of(ended(why), 0, compiling=True)
    assert (piece.text, piece.token_count, piece.finish) == ("a", 1, finish)


def test_a_grammar_that_does_not_compile_is_no_engine_that_died() -> None:
    with pytest.raises(NoGrammarError, match="does not compile"):
        list(pieces_of(ended("error"), 0, compiling=True))


@pytest.mark.parametrize(("why", "reason"), [("error", "ENGINE_FAILED"), ("abort", "ENGINE_DIED")])
def test_a_text_that_the_engine_gives_up_may_be_asked_for_again(why: str, reason: str) -> None:
    with pytest.raises(Unavailable) as told:
        list(pieces_of(ended(why), 0, compiling=False))
    assert told.value.reason == reason
    assert told.value.retry_after_s


def test_what_came_while_its_reader_was_slow_is_cut_to_fit_messages() -> None:
    long = "a token of sixty-four bytes, as there are for spaces and dashes."
    place = {at: SimpleNamespace(decoded_token=long, logprob=-1.0, rank=at) for at in range(1, 21)}
    tokens = [1] * 1000
    pieces = list(pieces_of(written(long * 1000, tokens, "length", [place] * 1000), 20, compiling=False))
    messages = [pb.GenerateResponse(text=each.text, logprobs=each.logprobs) for each in pieces]
    assert max(message.ByteSize() for message in messages) < 256 * 1024
    assert "".join(message.text for message in messages) == long * 1000
    assert sum(each.token_count for each in pieces) == sum(len(each.logprobs) for each in pieces) == 1000
    assert [each.finish for each in pieces[:-1]] == [pb.FINISH_REASON_UNSPECIFIED] * (len(pieces) - 1)
    assert pieces[-1].finish == pb.FINISH_REASON_LENGTH


def test_a_text_without_log_probabilities_is_cut_where_it_alone_is_too_long() -> None:
    [whole] = pieces_of(written("a" * 60_000, [1] * 60_000, None), 0, compiling=False)
    assert (len(whole.text), whole.token_count) == (60_000, 60_000)
    first, last = pieces_of(written("\U0001f300" * 70_000, [1] * 70_000, "stop"), 0, compiling=False)
    assert (len(first.text) + len(last.text), first.token_count + last.token_count) == (70_000, 70_000)
    assert (first.finish, last.finish) == (pb.FINISH_REASON_UNSPECIFIED, pb.FINISH_REASON_STOP)
