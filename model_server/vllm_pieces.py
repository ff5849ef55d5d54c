"""What vLLM has written, cut to pieces for a caller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import TYPE_CHECKING

from llmesh.api.model.v1 import model_pb2 as pb
from model_server.engine import NoGrammarError, Piece
from model_server.engine_faults import dead, failed

if TYPE_CHECKING:
    from vllm.logprobs import Logprob
    from vllm.outputs import RequestOutput

__all__ = ["pieces_of"]

# Of a piece, at most: of tokens, where each has its log probabilities, and twenty others have theirs. A message has a
# megabyte.
PIECE_CHARS, PIECE_TOKENS = 65_536, 64
FINISHES = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}


def pieces_of(output: RequestOutput, most: int, *, compiling: bool) -> Iterator[Piece]:
    """A piece of vLLM's, which of a slow reader's text has all that came meanwhile, as pieces that fit a message each.

    most: how many likeliest tokens to tell. compiling: there is a grammar, and no piece yet.
    """
    (part,) = output.outputs
    if part.finish_reason == "error":
        raise NoGrammarError("its grammar does not compile") if compiling else failed()
    if part.finish_reason is not None and part.finish_reason not in FINISHES:
        # "abort": the engine is being closed.
        raise dead()
    tokens, logprobs, texts = part.token_ids, part.logprobs or (), list(_cut(part.text, PIECE_CHARS))
    at_once = PIECE_TOKENS if logprobs else max(1, len(tokens))
    pieces = max(len(texts), ceil(len(tokens) / at_once))
    # Text may come later than its tokens, and not before.
    texts = [""] * (pieces - len(texts)) + texts
    finish = FINISHES[part.finish_reason] if part.finish_reason else pb.FINISH_REASON_UNSPECIFIED
    for number, text in enumerate(texts, start=1):
        here = slice((number - 1) * at_once, number * at_once)
        yield Piece(
            text=text,
            token_count=len(tokens[here]),
            finish=finish if number == pieces else pb.FINISH_REASON_UNSPECIFIED,
            cached_token_count=output.num_cached_tokens or 0,
            logprobs=tuple(_logprobs(tokens[here], logprobs[here], most)),
        )


def _cut(text: str, most: int) -> Iterator[str]:
    """The text in parts of at most so many characters; at least one."""
    for first in range(0, max(1, len(text)), most):
        yield text[first : first + most]


def _logprobs(tokens: Sequence[int], found: Sequence[dict[int, Logprob]], most: int) -> Iterator[pb.TokenLogprobs]:
    """Of each token; the likeliest first."""
    for token, places in zip(tokens, found, strict=False):
        told = {
            at: pb.TokenLogprob(token=at, text=one.decoded_token or "", logprob=one.logprob)
            for at, one in places.items()
        }
        ranked = sorted(places, key=lambda at: places[at].rank or 0)
        # vLLM tells the one that was picked beside the likeliest, where it is none of them.
        yield pb.TokenLogprobs(picked=told[token], likeliest=[told[at] for at in ranked[:most]])
