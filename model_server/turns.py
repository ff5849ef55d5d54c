"""What the model is told beside what it was asked: the type to answer as, what to mend, what it may call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import Violation

__all__ = ["answer_as", "choose_from", "mend", "request_for"]


def answer_as(conversation: pb.Conversation, type_name: str, schema: str) -> pb.Conversation:
    """The conversation, and at its end what the answer has to look like."""
    return _said(conversation, f"Answer with one JSON value, a `{type_name}`, that fits this JSON Schema:\n{schema}")


def choose_from(conversation: pb.Conversation, summaries: Mapping[str, str]) -> pb.Conversation:
    """The conversation, and at its end the methods that may be called next. summaries: by method, perhaps empty."""
    offered = "\n".join(f"- {method}: {summary}" if summary else f"- {method}" for method, summary in summaries.items())
    return _said(conversation, f"Choose the method to call next. Answer with its name in quotes.\n{offered}")


def request_for(conversation: pb.Conversation, method: str, summary: str) -> pb.Conversation:
    """The conversation, and at its end the method that is called next."""
    return _said(conversation, f"The method to call next is {method}{f': {summary}' if summary else ''}")


def mend(
    asked: pb.Conversation | str, text: str, broken: Sequence[Violation], *, plain: Callable[[str], str]
) -> pb.Conversation | str:
    """What was asked and answered, and what is wrong with the answer.

    plain: the engine's. Of a prompt, control tokens are the caller's to write, and not the answer's, which may repeat
    what a document says; nor the violations', which may quote the answer.
    """
    wrong = "\n".join(
        f"- `{each.field}` {each.description}" if each.field else f"- {each.description}" for each in broken
    )
    words = f"That breaks rules of its type:\n{wrong}\nAnswer again, with these mended."
    if isinstance(asked, str):
        return asked + plain(f"{text}\n{words}\n")
    longer = pb.Conversation(messages=asked.messages)
    longer.messages.add(role=pb.ROLE_ASSISTANT, content=text)
    longer.messages.add(role=pb.ROLE_USER, content=words)
    return longer


def _said(conversation: pb.Conversation, words: str) -> pb.Conversation:
    """The words at the end of the user's last turn, if nobody spoke since: templates want turns to alternate."""
    longer = pb.Conversation(messages=conversation.messages)
    if longer.messages and longer.messages[-1].role == pb.ROLE_USER:
        longer.messages[-1].content += f"\n\n{words}"
    else:
        longer.messages.add(role=pb.ROLE_USER, content=words)
    return longer
