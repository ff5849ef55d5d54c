"""A model's answer as a message: asked of the mesh's model server, for the caller of a call."""

from __future__ import annotations

__all__ = ["Written", "generate", "has_room"]

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError, Message

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.api.model.v1.model_pb2_grpc import ModelServiceStub
from llmesh.call import Call
from llmesh.errors import Denied, FailedPrecondition, InvalidCall, NotFound, ToolFailed, Unavailable, Unimplemented

R = TypeVar("R", bound=Message)

_INPUT = "conversation"
# What the mesh says of a method that the contract lists, and that is not there now, or not for this tool.
_NOT_DELEGATED = "NOT_DELEGATED"
_NO_MODEL = (
    "no model server is on this mesh, or its rules permit none to this tool: `make model` installs one and `llmesh up` "
    "starts it; where others run the mesh, ask the platform team"
)


@dataclass(frozen=True)
class Written(Generic[R]):
    """What a model answers. warning: what its reader must be told, such as that the model has random weights."""

    message: R
    warning: str = ""


async def generate(call: Call, prompt: str, response_type: type[R]) -> Written[R]:
    """What a model answers to a prompt, as a message of the type, which its rules hold for. The model is cited.

    Raises Unavailable if no model is there now, InvalidCall for a prompt that the model cannot take, and ToolFailed
    where it gives no answer of the type.
    """
    name = response_type.DESCRIPTOR.full_name
    request = pb.GenerateMessageRequest(
        conversation=_said(prompt), type=name, descriptors=_files(response_type.DESCRIPTOR.file)
    )
    with _told_to_callers(f"gives no `{name}`"):
        answer = await ModelServiceStub(call.mesh.channel).GenerateMessage(request)
    _cite(call, answer)
    return Written(_checked(answer, response_type), answer.warning)


async def has_room(call: Call, prompt: str, *, leaving: int) -> bool:
    """Whether the model reads a whole prompt, and can write so many tokens after it.

    The method that is called for must list CountTokens under `uses`, too. Raises Unavailable like `generate`.
    """
    try:
        with _told_to_callers("counts no tokens"):
            counted = await ModelServiceStub(call.mesh.channel).CountTokens(
                pb.CountTokensRequest(conversation=_said(prompt))
            )
    except InvalidCall:
        # It is more than may be sent.
        return False
    return counted.token_count + leaving <= counted.context_length


def _said(prompt: str) -> pb.Conversation:
    return pb.Conversation(messages=[pb.ChatMessage(role=pb.ROLE_USER, content=prompt)])


@contextmanager
def _told_to_callers(unable: str) -> Generator[None]:
    """Raise what fails at the model server as what it is to the caller of a tool. unable: what the model doesn't do."""
    try:
        yield
    except (Unimplemented, NotFound) as err:
        raise Unavailable(_NO_MODEL, reason="NO_MODEL_SERVER") from err
    except Denied as err:
        if err.reason != _NOT_DELEGATED:
            raise
        raise Unavailable(_NO_MODEL, reason="NO_MODEL_SERVER") from err
    except InvalidCall as err:
        raise _refused(err) from err
    except FailedPrecondition as err:
        raise ToolFailed(f"the model {unable}: {err.message}", reason=err.reason) from err


def _refused(err: InvalidCall) -> InvalidCall | ToolFailed:
    """What a caller is told of a request that the model server refuses: of its fields, they know none."""
    if any(each.field.startswith(_INPUT) for each in err.violations):
        return InvalidCall(
            f"the model cannot take the prompt for this request: {err.message}", reason="PROMPT_TOO_LONG"
        )
    return ToolFailed(f"the model server refuses what is asked: {err.message}", reason="MODEL_REFUSED")


def _cite(call: Call, answer: pb.GenerateMessageResponse) -> None:
    source = answer.provenance
    call.cite(model=source.model, revision=source.revision, weights_digest=source.weights_digest)
    if answer.warning:
        call.cite(warning=answer.warning)


def _checked(answer: pb.GenerateMessageResponse, response_type: type[R]) -> R:
    """The answer's message: another process made it. Raises ToolFailed for another type, or against its rules."""
    from protovalidate import collect_violations  # a fifth of a second that a client need not spend

    name = response_type.DESCRIPTOR.full_name
    if answer.message.TypeName() != name:
        told = f"the model answers with a `{answer.message.TypeName()}`, and no `{name}`"
        raise ToolFailed(told, reason="OTHER_TYPE")
    try:
        message = response_type.FromString(answer.message.value)
    except DecodeError as err:
        raise ToolFailed(f"the model's answer is no `{name}`", reason="MALFORMED") from err
    if collect_violations(message):
        raise ToolFailed(f"the model's answer breaks the rules of `{name}`", reason="RULES_BROKEN")
    return message


@cache
def _files(file: FileDescriptor) -> FileDescriptorSet:
    """The file and all that it imports, each after its imports."""
    found: dict[str, FileDescriptor] = {}

    def collect(each: FileDescriptor) -> None:
        if each.name not in found:
            for imported in each.dependencies:
                collect(imported)
            found[each.name] = each

    collect(file)
    whole = FileDescriptorSet()
    for each in found.values():
        each.CopyToProto(whole.file.add())
    return whole
