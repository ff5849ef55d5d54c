"""How large a schema lets its instances be, and how large it may be itself."""

from __future__ import annotations

__all__ = ["Limits"]

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds everything that a contract leaves unbounded.

    A smaller maximum in the contract holds; a larger one is cut to the limit. A
    minimum in the contract holds above the limit too, up to `demand`.

    string_chars: of a string. data_bytes: of a bytes field. key_chars: of a map's
    string key. items: of a list. entries: of a map. number: how far a float or
    double may be from 0, unless the contract says how far. demand: the largest
    minimum of characters, bytes, items or entries; what a contract demands more of is
    left out.
    depth: messages inside each other, the outermost included. recursion: how often
    a message may hold one of its own type again, on one way down.
    alternatives: closed objects that the oneofs of one message multiply out to.
    optional: fields of one message that may be absent, each by itself. What a decoder takes to make a grammar of them
    grows much faster than they do: of 600 half a second, of 1,600 minutes (xgrammar 0.2.8).
    schema_chars: length of the schema, about.
    """

    string_chars: int = 256
    data_bytes: int = 192
    key_chars: int = 24
    items: int = 8
    entries: int = 8
    number: int = 1_000_000
    demand: int = 4096
    depth: int = 8
    recursion: int = 1
    alternatives: int = 64
    optional: int = 256
    schema_chars: int = 256 * 1024
