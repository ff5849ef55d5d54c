"""The types that callers name: from the files they send, or from contracts that they see on the mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from llmesh.call import current_call
from llmesh.errors import InvalidCall, ToolFailed, Violation
from llmesh.reflection import files_defining
from model_server.engine import NoGrammarError
from model_server.type_work import BAD_FILES, Fitting, Looked, Named, Read, look, read, unknown, widest
from model_server.workshop import SpentError, Visit

__all__ = ["TypedType", "Types"]

T = TypeVar("T")
Given = TypeVarTuple("Given")


class Types:
    """The types of one call, by name: those of the files that came with it, else those that its caller sees."""

    def __init__(self, sent: FileDescriptorSet | None, visit: Visit) -> None:
        """sent: None to ask the mesh."""
        self._sent = None if sent is None else tuple(file.SerializeToString() for file in sent.file)
        self._visit = visit

    async def find(self, name: str, *, field: str) -> TypedType:
        """The message type of that name, or the request of the method "acme.support.v1.Tickets/GetTicket".

        field: of the request that names it, for errors. Raises NotFound, InvalidCall as `look` does or if the type
        takes too much to be looked at; of the mesh's files, ToolFailed if they do not fit together, and what calling
        the mesh raises.
        """
        if self._sent is not None:
            return await self._look(Named(self._sent, name, field, sent=True))
        files = tuple(await files_defining(current_call().mesh.channel, name.partition("/")[0]))
        if not files:
            raise unknown(name)
        try:
            return await self._look(Named(files, name, field, sent=False))
        except InvalidCall as err:
            if err.reason != BAD_FILES:
                raise
            words = f"what the mesh tells of `{name}` does not fit together: {err.violations[0].description}"
            raise ToolFailed(words, reason="BAD_REFLECTION") from err

    async def _look(self, named: Named) -> TypedType:
        return TypedType(await _worked(self._visit, named, look), named, self._visit)


@dataclass(frozen=True, slots=True)
class TypedType:
    """A type that can be answered as. What is made of it is made in the workshop. Raises InvalidCall for its rules."""

    looked: Looked
    named: Named
    visit: Visit

    @property
    def name(self) -> str:
        """In full."""
        return self.looked.type_name

    async def widest(self, room: int) -> Fitting:
        """The schema within the widest limits whose longest message fits the room, in tokens; else the narrowest."""
        return await _worked(self.visit, self.named, widest, room)

    async def read(self, text: str) -> Read:
        """The message that a text says, if it says one, and what of it breaks the type's rules."""
        return await _worked(self.visit, self.named, read, text)

    def ungrammatical(self, err: NoGrammarError) -> InvalidCall:
        """What is told of an engine that can make no grammar of its schema."""
        return _wrong(self.named, f"the engine makes no grammar of `{self.name}`: {err}", reason="NO_GRAMMAR")


async def _worked(visit: Visit, named: Named, work: Callable[[Named, *Given], T], *given: *Given) -> T:
    try:
        return await visit.run(work, named, *given)
    except SpentError as err:
        raise _wrong(named, f"what is made of `{named.name}` {err}", reason="TOO_COSTLY") from err


def _wrong(named: Named, words: str, *, reason: str) -> InvalidCall:
    return InvalidCall(f"`{named.field}`: {words}", [Violation(named.field, words)], reason=reason)
