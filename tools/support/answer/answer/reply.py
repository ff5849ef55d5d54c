"""A reply that a model writes from passages, each sentence tied to those that it rests on."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from acme.support.v1 import answer_pb2 as pb

import llmesh

__all__ = ["PROMPT", "add_reply", "tied"]

PROMPT = llmesh.Prompt.load(Path(__file__).with_name("prompts") / "reply.jinja", pb.ReplyPrompt)
# Of the time that the call has left: the rest is for the answer without a reply.
_SHARE = 0.9
# What the model is left to write: four sentences of 64 characters, even where each byte is a token.
_REPLY_TOKENS = 1300


async def add_reply(call: llmesh.Call, question: str, answer: pb.AnswerTicketResponse) -> None:
    """Add the reply to an answer that has its passages; where none can be written, a note that says why."""
    if not answer.sources:
        # Nothing is found, which needs no model to say.
        answer.reply.found = False
        return
    try:
        async with asyncio.timeout(None if call.remaining_s is None else call.remaining_s * _SHARE):
            read = await _read(question, answer.sources)
            if not read:
                answer.note = "there is no reply: the model has no room for a single passage"
                return
            written = await PROMPT.ask(_asked(question, answer.sources, read), pb.Reply)
    except TimeoutError:
        answer.note = "there is no reply: the model was not done in time"
        return
    except llmesh.MeshError as err:
        answer.note = f"there is no reply: {err.message}"
        return
    sentences = tied(written.message, passages=read)
    answer.reply.found = bool(sentences)
    answer.reply.sentences.extend(sentences)
    told = (written.warning, _unread(read, len(answer.sources)), _left_out(written.message, sentences))
    answer.note = "; ".join(filter(None, told))


def _asked(question: str, sources: Sequence[pb.Source], most: int) -> pb.ReplyPrompt:
    return pb.ReplyPrompt(question=question, sources=sources[:most])


async def _read(question: str, sources: Sequence[pb.Source]) -> int:
    """How many passages, from the best on, the model has room for beside its reply. Fails as the model server does."""
    fit, most = 0, len(sources)
    # Mostly there is room for all.
    tried = most
    while fit < most:
        if await PROMPT.fits(_asked(question, sources, tried), leaving=_REPLY_TOKENS):
            fit = tried
        else:
            most = tried - 1
        tried = (fit + most + 1) // 2
    return fit


def tied(reply: pb.Reply, *, passages: int) -> list[pb.Sentence]:
    """The sentences that rest on passages that there are, with those alone; none if the reply says that nothing does.

    passages: how many there are.
    """
    if not reply.found:
        return []
    found = (
        pb.Sentence(text=each.text, passages=sorted({number for number in each.passages if 1 <= number <= passages}))
        for each in reply.sentences
    )
    return [each for each in found if each.passages and each.text.strip()]


def _unread(read: int, passages: int) -> str:
    if read == passages:
        return ""
    return f"the model had room for the best {read} of {passages} passages: the reply is from those alone"


def _left_out(reply: pb.Reply, kept: Sequence[pb.Sentence]) -> str:
    missing = len(reply.sentences) - len(kept)
    if not missing:
        return ""
    return f"{missing} of {len(reply.sentences)} sentences are left out: they name no passage that there is"
