"""What a request leaves open is filled in, and what no model can do is refused before the engine sees it."""

from __future__ import annotations

import pytest

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import InvalidCall
from model_server.sampling import MAX_TOKENS, fill_in


def filled(
    asked: pb.Sampling, *, makers: pb.Sampling | None = None, tokens: int = 10, context: int = 4096
) -> pb.Sampling:
    return fill_in(asked, makers or pb.Sampling(), field="prompt", input_tokens=tokens, context=context)


def test_what_nobody_says_is_the_plainest_there_is() -> None:
    assert filled(pb.Sampling()) == pb.Sampling(temperature=1, top_p=1, top_k=0, max_tokens=MAX_TOKENS)


def test_the_makers_fill_in_what_the_caller_leaves_open() -> None:
    makers = pb.Sampling(temperature=0.6, top_k=20)
    used = filled(pb.Sampling(top_k=0, seed=3), makers=makers)
    assert used == pb.Sampling(temperature=0.6, top_p=1, top_k=0, seed=3, max_tokens=MAX_TOKENS)


def test_a_text_may_be_as_long_as_the_context_leaves_room_for() -> None:
    assert filled(pb.Sampling(), tokens=4000).max_tokens == 96
    assert filled(pb.Sampling(max_tokens=96), tokens=4000).max_tokens == 96
    with pytest.raises(InvalidCall, match="97") as told:
        filled(pb.Sampling(max_tokens=97), tokens=4000)
    assert [each.field for each in told.value.violations] == ["sampling.max_tokens"]


def test_an_answer_tells_no_more_log_probabilities_than_are_kept_for_its_reader() -> None:
    most = pb.Sampling(logprobs=20, max_tokens=3120)
    assert filled(most) == pb.Sampling(temperature=1, top_p=1, top_k=0, logprobs=20, max_tokens=3120)
    with pytest.raises(InvalidCall, match="65536 at most") as told:
        filled(pb.Sampling(logprobs=20, max_tokens=3121))
    assert told.value.reason == "TOO_MANY_LOGPROBS"
    assert [each.field for each in told.value.violations] == ["sampling.logprobs"]
    assert filled(pb.Sampling(max_tokens=100_000), context=200_000).max_tokens == 100_000


@pytest.mark.parametrize("tokens", [4096, 5000])
def test_an_input_that_leaves_no_room_is_named(tokens: int) -> None:
    with pytest.raises(InvalidCall, match="at most 4095") as told:
        filled(pb.Sampling(), tokens=tokens)
    assert (told.value.reason, [each.field for each in told.value.violations]) == ("INPUT_TOO_LONG", ["prompt"])
    assert filled(pb.Sampling(), tokens=4095).max_tokens == 1
