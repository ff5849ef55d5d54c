"""Types that an answer packs (google.protobuf.Any): its contract need not have them; its request or the mesh may."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from google.protobuf import any_pb2, json_format, message_factory, wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError, Message

from llmesh.dynamic import imports_first
from llmesh.errors import MeshError
from llmesh.reflection import files_defining

if TYPE_CHECKING:
    import grpc.aio
    from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["learn_packed", "learn_sent"]

# What a hostile answer may have looked up.
TYPES_MOST = 16
# So many levels of messages are looked into, what is packed among them: what follows may have as many, which protobuf
# reads at most, and all of them can be shown.
DEEPEST = 100
# What is packed counts as so many of them: each time all that is below is read anew.
PACKED_COUNTS = 6
_BYTES = wrappers_pb2.BytesValue.DESCRIPTOR


def learn_sent(request: Message) -> None:
    """Add to the request's pool the files that it sends along, as one that asks for the caller's own type does."""
    pool = cast("DescriptorPool", request.DESCRIPTOR.file.pool)
    for field, value in request.ListFields():
        if field.message_type and field.message_type.full_name == FileDescriptorSet.DESCRIPTOR.full_name:
            for each in value if field.is_repeated else [value]:
                _add(FileDescriptorSet.FromString(each.SerializeToString()).file, pool)


async def learn_packed(channel: grpc.aio.Channel, answer: Message) -> None:
    """Add to the answer's pool the types of what it packs, as far as the caller sees them on the mesh.

    What is packed of a type that is not known then, is no message of its type, or one that has no JSON, becomes its
    bytes: a BytesValue whose type's URL begins with the one that it had.
    """
    await _Learning(channel, cast("DescriptorPool", answer.DESCRIPTOR.file.pool)).go_through(answer, DEEPEST)


class _Learning:
    """One answer's, which is gone through once."""

    def __init__(self, channel: grpc.aio.Channel, pool: DescriptorPool) -> None:
        self._channel = channel
        self._pool = pool
        self._looked_up: set[str] = set()

    async def go_through(self, message: Message, depth: int) -> None:
        """Learn the types of all that a message packs, and what that packs; make bytes of what can't be shown."""
        for packed, left in _anys(message, depth):
            name = packed.type_url.rpartition("/")[2]
            if left >= 0:
                await self._look_up(name)
            if left >= 0 and (inner := _inside(packed, name, self._pool)):
                await self.go_through(inner, left)
                packed.value = inner.SerializePartialToString()
                continue
            _add([FileDescriptorProto.FromString(_BYTES.file.serialized_pb)], self._pool)
            packed.type_url += f"/{_BYTES.full_name}"
            packed.value = wrappers_pb2.BytesValue(value=packed.value).SerializeToString()

    async def _look_up(self, name: str) -> None:
        if _has(self._pool, name) or name in self._looked_up or len(self._looked_up) == TYPES_MOST:
            return
        self._looked_up.add(name)
        with suppress(MeshError):
            _add(map(FileDescriptorProto.FromString, await files_defining(self._channel, name)), self._pool)


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


def _anys(message: Message, depth: int) -> Iterator[tuple[any_pb2.Any, int]]:
    """Those in a message that pack something, but for those inside of what is packed, and what is left of the depth."""
    if message.DESCRIPTOR.full_name == any_pb2.Any.DESCRIPTOR.full_name:
        if message.ListFields():
            yield cast("any_pb2.Any", message), depth - PACKED_COUNTS
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


def _inside(packed: any_pb2.Any, name: str, pool: DescriptorPool) -> Message | None:
    """What is packed; None if its type is not known, it is no message of it, or has no JSON whatever it packs."""
    if not _has(pool, name):
        return None
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    # ValueError is what the types that are written as text raise, where nothing holds them.
    with suppress(DecodeError, json_format.SerializeToJsonError, ValueError):
        alone = kind.FromString(packed.value)
        for each, _ in _anys(alone, DEEPEST):
            each.Clear()
        json_format.MessageToDict(alone, descriptor_pool=pool)
        return kind.FromString(packed.value)
    return None
