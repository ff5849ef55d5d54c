"""A model server that answers what a test says, behind the real interface; `python -m tests.models` fills in forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import llmesh
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceServicer

__all__ = ["MODELS", "WARNING", "Models", "models"]

MODELS = "llmesh.api.model.v1.ModelService"
WARNING = "this model fills in forms, and reads nothing"

PROVENANCE = pb.Provenance(model="tests/tiny", revision="r1", weights_digest="sha256:77", prompt_digest="sha256:11")


class Models(ModelServiceServicer):
    """Answers GenerateMessage, and counts tokens: words. asked: each request for a message, in order.

    context_length: how many words it reads and writes.
    """

    def __init__(
        self, answer: Callable[[pb.GenerateMessageRequest], Message], *, warning: str, context_length: int = 8192
    ) -> None:
        self._answer = answer
        self._warning = warning
        self._context_length = context_length
        self.asked: list[pb.GenerateMessageRequest] = []

    async def GenerateMessage(self, request: pb.GenerateMessageRequest, context: object) -> pb.GenerateMessageResponse:
        self.asked.append(request)
        told = pb.GenerateMessageResponse(provenance=PROVENANCE, warning=self._warning)
        told.message.Pack(self._answer(request))
        return told

    async def CountTokens(self, request: pb.CountTokensRequest, context: object) -> pb.CountTokensResponse:
        tokens = sum(len(each.content.split()) for each in request.conversation.messages)
        if tokens >= self._context_length:
            words = f"{tokens} tokens of {self._context_length}"
            raise llmesh.InvalidCall(words, [llmesh.Violation("conversation", words)], reason="INPUT_TOO_LONG")
        return pb.CountTokensResponse(token_count=tokens, model="tests/tiny", context_length=self._context_length)

    @property
    def prompts(self) -> list[str]:
        """What it was asked, in words."""
        return [each.conversation.messages[0].content for each in self.asked]


def models(
    answer: Message | Exception | Callable[[pb.GenerateMessageRequest], Message],
    *,
    warning: str = "",
    context_length: int = 8192,
) -> Models:
    """A model server that always answers the same, or fails so, or answers as a function says."""

    def given(request: pb.GenerateMessageRequest) -> Message:
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Message) else answer(request)

    return Models(given, warning=warning, context_length=context_length)  # pyright: ignore[reportAbstractUsage] no other method is called


def filled_in(request: pb.GenerateMessageRequest) -> Message:
    """A message of the type that is asked for, by the files that came with it: each field the least that says much."""
    pool = DescriptorPool()
    for file in request.descriptors.file:
        pool.Add(file)
    message = GetMessageClass(pool.FindMessageTypeByName(request.type))()
    _fill(message)
    return message


def _fill(message: Message) -> None:
    for field in cast("Descriptor", message.DESCRIPTOR).fields:
        if field.message_type is not None:
            _fill(getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name))
        elif field.is_repeated:
            getattr(message, field.name).append(_value(field))
        else:
            setattr(message, field.name, _value(field))


def _value(field: FieldDescriptor) -> object:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return f"Some {field.name}."
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return 0.5
        case _:
            return 1


if __name__ == "__main__":
    llmesh.serve(models(filled_in, warning=WARNING))
