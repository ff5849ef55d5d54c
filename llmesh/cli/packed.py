"""Types that an answer packs (google.protobuf.Any): its contract need not have them; its request or the mesh may."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from google.protobuf import any_pb2, message_factory, wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError, Message

from llmesh.dynamic import imports_first
from llmesh.errors import MeshError
from llmesh.reflection import files_defining

if TYPE_CHECKING:
    import grpc.aio
    from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["files_in", "learn_packed"]

# What a hostile answer may have looked up.
TYPES_MOST = 16
# So many levels of messages are looked into, what is packed among them: what follows may have as many, which protobuf
# reads at most, and all of them can be shown.
DEEPEST = 100
_BYTES = wrappers_pb2.BytesValue.DESCRIPTOR


def files_in(request: Message) -> Iterator[FileDescriptorProto]:
    """The files that a request sends along, as one that asks for a message of the caller's own type does."""
    for field, value in request.ListFields():
        if field.message_type and field.message_type.full_name == FileDescriptorSet.DESCRIPTOR.full_name:
            for each in value if field.is_repeated else [value]:
                yield from FileDescriptorSet.FromString(each.SerializeToString()).file


async def learn_packed(channel: grpc.aio.Channel, answer: Message, files: Iterable[FileDescriptorProto] = ()) -> None:
    """Add to the answer's pool the types of what it packs: those of files, and those that the caller sees on the mesh.

    What is packed of a type that is in neither, or is no message of its type, becomes its bytes: a BytesValue whose
    type's URL begins with the one that it had.
    """
    pool = cast("DescriptorPool", answer.DESCRIPTOR.file.pool)
    _add(files, pool)
    looked_up: set[str] = set()
    while len(looked_up) < TYPES_MOST:
        name = next((name for name in _packed(answer, pool) if name not in looked_up and not _has(pool, name)), None)
        if name is None:
            break
        looked_up.add(name)
        with suppress(MeshError):
            _add(map(FileDescriptorProto.FromString, await files_defining(channel, name)), pool)
    _show_bytes(answer, pool)


def _has(pool: DescriptorPool, name: str) -> bool:
    try:
        pool.FindMessageTypeByName(name)
    except KeyError:
        return False
    return True


def _add(files: Iterable[FileDescriptorProto], pool: DescriptorPool) -> None:
    """Add what is not there; a file that does not fit to what is there is left out."""
    for file in imports_first(files):
        try:
            pool.FindFileByName(file.name)
        except KeyError:
            with suppress(TypeError):
                pool.Add(file)


def _packed(message: Message, pool: DescriptorPool, depth: int = DEEPEST) -> Iterator[str]:
    """Full names of all that is packed in a message, outermost first; inside of what is packed too, if it is known."""
    for packed, left in _anys(message, depth):
        yield _name(packed)
        if inner := _inside(packed, pool, left):
            yield from _packed(inner, pool, left)


def _show_bytes(message: Message, pool: DescriptorPool, depth: int = DEEPEST) -> None:
    for packed, left in _anys(message, depth):
        if inner := _inside(packed, pool, left):
            _show_bytes(inner, pool, left)
            packed.value = inner.SerializePartialToString()
        else:
            _add([FileDescriptorProto.FromString(_BYTES.file.serialized_pb)], pool)
            packed.type_url += f"/{_BYTES.full_name}"
            packed.value = wrappers_pb2.BytesValue(value=packed.value).SerializeToString()


def _anys(message: Message, depth: int) -> Iterator[tuple[any_pb2.Any, int]]:
    """Those in a message that pack something, but for those inside of what is packed, and what is left of the depth."""
    if message.DESCRIPTOR.full_name == any_pb2.Any.DESCRIPTOR.full_name:
        if message.ListFields():
            yield cast("any_pb2.Any", message), depth - 1
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            held = [value]
        else:
            held = value.values() if field.message_type.GetOptions().map_entry else value
        for each in held:
            # The values of a map need be no messages.
            if isinstance(each, Message):
                yield from _anys(each, depth - 1)


def _inside(packed: any_pb2.Any, pool: DescriptorPool, depth: int) -> Message | None:
    """What is packed; None if its type is not known, it is no message of it, or no depth is left."""
    name = _name(packed)
    if depth < 0 or not _has(pool, name):
        return None
    with suppress(DecodeError):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name)).FromString(packed.value)
    return None


def _name(packed: any_pb2.Any) -> str:
    return packed.type_url.rpartition("/")[2]
