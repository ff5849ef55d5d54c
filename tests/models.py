"""A model server that answers what a test says, behind the real interface."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceServicer

__all__ = ["Models", "models"]

PROVENANCE = pb.Provenance(model="tests/tiny", revision="r1", weights_digest="sha256:77", prompt_digest="sha256:11")


class Models(ModelServiceServicer):
    """Answers GenerateMessage alone. asked: each request, in order."""

    def __init__(self, answer: Callable[[pb.GenerateMessageRequest], Message], *, warning: str) -> None:
        self._answer = answer
        self._warning = warning
        self.asked: list[pb.GenerateMessageRequest] = []

    async def GenerateMessage(self, request: pb.GenerateMessageRequest, context: object) -> pb.GenerateMessageResponse:
        self.asked.append(request)
        told = pb.GenerateMessageResponse(provenance=PROVENANCE, warning=self._warning)
        told.message.Pack(self._answer(request))
        return told

    @property
    def prompts(self) -> list[str]:
        """What it was asked, in words."""
        return [each.conversation.messages[0].content for each in self.asked]


def models(
    answer: Message | Exception | Callable[[pb.GenerateMessageRequest], Message], *, warning: str = ""
) -> Models:
    """A model server that always answers the same, or fails so, or answers as a function says."""

    def given(request: pb.GenerateMessageRequest) -> Message:
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Message) else answer(request)

    return Models(given, warning=warning)  # pyright: ignore[reportAbstractUsage] no other method is called
