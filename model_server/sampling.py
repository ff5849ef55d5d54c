"""How tokens are picked: what a request left open filled in, and what no model can do refused."""

from __future__ import annotations

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import InvalidCall, Violation

__all__ = ["MAX_TOKENS", "fill_in"]

# What a request that does not say gets at most.
MAX_TOKENS = 1024
# Log probabilities that one answer tells: what a reader does not take is kept for them, a quarter of a kilobyte each.
MAX_LOGPROBS = 65_536


def fill_in(asked: pb.Sampling, defaults: pb.Sampling, *, field: str, input_tokens: int, context: int) -> pb.Sampling:
    """The sampling that is used: all of it but seed and logprobs is set.

    defaults: the makers' own. field: of the input, to name it where it is at
    fault. input_tokens: how many it has. context: tokens that the model reads
    and writes in one call. Raises InvalidCall where these do not fit.
    """
    room = context - input_tokens
    if room < 1:
        words = f"is {input_tokens} tokens, and the model reads at most {context - 1}"
        raise _wrong(field, words, reason="INPUT_TOO_LONG")
    if asked.max_tokens > room:
        words = f"is {asked.max_tokens}, and after {input_tokens} tokens of input the model can write {room} at most"
        raise _wrong("sampling.max_tokens", words, reason="OUTPUT_TOO_LONG")
    used = pb.Sampling(temperature=1.0, top_p=1.0, top_k=0)
    used.MergeFrom(defaults)
    used.MergeFrom(asked)
    used.max_tokens = asked.max_tokens or min(MAX_TOKENS, room)
    if asked.HasField("logprobs") and used.max_tokens * (asked.logprobs + 1) > MAX_LOGPROBS:
        words = (
            f"is {asked.logprobs} and the token's own, of {used.max_tokens} tokens, and an answer tells "
            f"{MAX_LOGPROBS} at most: lower it, or `sampling.max_tokens`"
        )
        raise _wrong("sampling.logprobs", words, reason="TOO_MANY_LOGPROBS")
    return used


def _wrong(field: str, words: str, *, reason: str) -> InvalidCall:
    return InvalidCall(f"`{field}` {words}", [Violation(field, words)], reason=reason)
