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


async def add_reply(call: llmesh.Call, question: str, answer: pb.AnswerTicketResponse) -> None:
    """Add the reply to an answer that has its passages; where none can be written, a note that says why."""
    if not answer.sources:
        # Nothing is found, which needs no model to say.
        answer.reply.SetInParent()
        return
    request = pb.ReplyPrompt(question=question, sources=answer.sources)
    try:
        async with asyncio.timeout(None if call.remaining_s is None else call.remaining_s * _SHARE):
            written = await PROMPT.ask(request, pb.Reply)
    except TimeoutError:
        answer.note = "there is no reply: the model was not done in time"
        return
    except llmesh.MeshError as err:
        answer.note = f"there is no reply: {err.message}"
        return
    sentences = tied(written.message, passages=len(answer.sources))
    answer.reply.found = bool(sentences)
    answer.reply.sentences.extend(sentences)
    answer.note = "; ".join(filter(None, (written.warning, _left_out(written.message, sentences))))


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


def _left_out(reply: pb.Reply, kept: Sequence[pb.Sentence]) -> str:
    missing = len(reply.sentences) - len(kept)
    if not missing:
        return ""
    return f"{missing} of {len(reply.sentences)} sentences are left out: they name no passage that there is"
