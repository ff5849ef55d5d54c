"""One message made of several tools' answers of one type. Pure.

What is made does not depend on the order in which answers came, save where
the first one is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any as Untyped

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from llmesh.api.options.v1 import options_pb2 as options
from llmesh.errors import InvalidCall, Violation

__all__ = ["Contribution", "Gathered", "Merging", "read_merge"]

# Of either implementation of protobuf's.
_Descriptor = Untyped

_SIGNED = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}
_WHOLE = {*_SIGNED, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
_SCORES = {*_WHOLE, FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
_KEYS = {*_WHOLE, FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_ENUM}


@dataclass(frozen=True, slots=True)
class Contribution:
    """One tool's answer. name: of the method that gave it. came: its place in the order in which they came.

    It is kept as its bytes: read, it may take forty times as much, which nobody counts.
    """

    name: str
    came: int
    type: type[Message]
    data: bytes

    @property
    def message(self) -> Message:
        """It, read anew."""
        return self.type.FromString(self.data)


@dataclass(frozen=True, slots=True)
class Merging:
    """Makes the one message of at least one answer, all of one type.

    field: the repeated one whose entries it takes. takes_first: it looks at the answer that came first alone.
    """

    make: Callable[[Sequence[Contribution]], Message]
    field: str = ""
    takes_first: bool = False

    def count(self, message: Message) -> int:
        """How many entries of an answer it has to look at."""
        return len(getattr(message, self.field)) if self.field else 1


# Of all answers together, as the message that is made of them has to fit one.
GATHERED_MOST_BYTES = 12 << 20
# An entry may take two bytes, and microseconds to merge, in which the gateway does nothing else.
GATHERED_MOST_ENTRIES = 20_000


@dataclass(slots=True)
class Gathered:
    """The answers so far, to be merged at the end."""

    merging: Merging
    answers: list[Contribution] = field(default_factory=list[Contribution])
    size_bytes: int = 0
    entry_count: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it is more than fits, and nothing is kept any more."""
        return self.size_bytes > GATHERED_MOST_BYTES or self.entry_count > GATHERED_MOST_ENTRIES

    @property
    def kept_bytes(self) -> int:
        """What the answers come to that are kept."""
        return 0 if self.is_over else self.size_bytes

    def add(self, name: str, message: Message) -> None:
        """One more. Beyond what fits, none is kept; nor is one that the merge does not look at."""
        if self.merging.takes_first and self.answers:
            return
        data = message.SerializeToString()
        self.size_bytes += len(data)
        self.entry_count += self.merging.count(message)
        if self.is_over:
            self.answers.clear()
        else:
            self.answers.append(Contribution(name, len(self.answers), type(message), data))

    def merged(self) -> Message | str:
        """The one message, or why there is none."""
        if self.is_over:
            what = f"{GATHERED_MOST_BYTES} bytes or {GATHERED_MOST_ENTRIES} entries"
            return f"the answers have more than {what} together"
        return self.merging.make(self.answers) if self.answers else "nothing has answered"


def read_merge(stated: options.Merge, answer: type[Message]) -> Merging:
    """How to merge answers of a type. Raises InvalidCall if they have no such fields."""
    descriptor = answer.DESCRIPTOR
    match stated.WhichOneof("how"):
        case "first":
            return Merging(_first, takes_first=True)
        case "concatenate":
            name = _repeated(descriptor, stated.concatenate.field, "merge.concatenate", messages=False)
            return Merging(lambda answers: _of_entries(answer, name, _entries(answers, name)), name)
        case "by_key":
            name = _repeated(descriptor, stated.by_key.field, "merge.by_key", messages=True)
            key = _path(descriptor, name, stated.by_key.key, "merge.by_key.key", _KEYS)
            return Merging(lambda answers: _of_entries(answer, name, _distinct(_entries(answers, name), key)), name)
        case "top_k":
            return _top_k(stated.top_k, answer)
        case _:
            raise _invalid("merge", "does not say how, nor does the request type's `capability`")


def _top_k(stated: options.TopK, answer: type[Message]) -> Merging:
    name = _repeated(answer.DESCRIPTOR, stated.field, "merge.top_k", messages=True)
    score = _path(answer.DESCRIPTOR, name, stated.score, "merge.top_k.score", _SCORES)
    key = _path(answer.DESCRIPTOR, name, stated.key, "merge.top_k.key", _KEYS) if stated.key else None

    def merged(answers: Sequence[Contribution]) -> Message:
        # Sorting is stable: of equal scores, the order of names stays.
        found: Iterable[Untyped] = sorted(_entries(answers, name), key=lambda each: _below(score(each)))
        kept = list(_distinct(found, key) if key else found)
        return _of_entries(answer, name, kept[: stated.k or None])

    return Merging(merged, name)


def _below(score: float) -> tuple[bool, float]:
    """What sorts the highest first and NaN, which compares with nothing, last."""
    return (True, 0.0) if math.isnan(score) else (False, -score)


def _first(answers: Sequence[Contribution]) -> Message:
    return min(answers, key=lambda answer: answer.came).message


def _entries(answers: Sequence[Contribution], name: str) -> Iterator[Untyped]:
    for answer in sorted(answers, key=lambda answer: answer.name):
        yield from getattr(answer.message, name)


def _distinct(entries: Iterable[Untyped], key: Callable[[Untyped], Untyped]) -> Iterator[Untyped]:
    seen: set[Untyped] = set()
    for entry in entries:
        if (value := key(entry)) not in seen:
            seen.add(value)
            yield entry


def _of_entries(answer: type[Message], name: str, entries: Iterable[Untyped]) -> Message:
    merged = answer()
    getattr(merged, name).extend(entries)
    return merged


def _repeated(descriptor: _Descriptor, name: str, where: str, *, messages: bool) -> str:
    """The name of a repeated field. messages: it must be of messages."""
    field = descriptor.fields_by_name.get(name)
    if field is None:
        raise _invalid(f"{where}.field", f"names `{name}`, which is no field of `{descriptor.full_name}`")
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if not field.is_repeated or is_map or (messages and field.message_type is None):
        kind = "a repeated field of messages" if messages else "a repeated field"
        raise _invalid(f"{where}.field", f"names `{name}`, which is not {kind} of `{descriptor.full_name}`")
    return name


def _path(answer: _Descriptor, repeated: str, path: str, where: str, kinds: set[int]) -> Callable[[Untyped], Untyped]:
    """What reads, of an entry of a repeated field, the value at a path of fields, which must be of one of the kinds."""
    entry = answer.fields_by_name[repeated].message_type
    reached, field = entry, None
    for name in path.split("."):
        field = reached.fields_by_name.get(name) if reached else None
        if field is None or field.is_repeated:
            raise _invalid(where, f"has `{path}`, which is no path of single fields in `{entry.full_name}`")
        reached = field.message_type
    if field is None or field.cpp_type not in kinds:
        kind = "a number" if kinds is _SCORES else "text, a whole number, a boolean or an enum"
        raise _invalid(where, f"has `{path}`, which is not {kind} in `{entry.full_name}`")
    return attrgetter(path)


def _invalid(where: str, what: str) -> InvalidCall:
    return InvalidCall(f"`{where}` {what}", [Violation(where, what, "MERGE")], reason="BAD_MERGE")
