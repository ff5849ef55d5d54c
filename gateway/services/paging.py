"""Parts of a listing: what fits into a message, and tokens of where it goes on.

A token is opaque to clients and good only for its own listing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

from llmesh.errors import InvalidCall, Violation

_CHECK_BYTES = 6
# What gRPC clients receive by default is 4 MiB.
MESSAGE_BYTES = 3 << 20

M = TypeVar("M", bound=Message)


def batches(messages: Iterable[M]) -> Iterator[list[M]]:
    """The messages in their order, as lists that each fit into one answer."""
    part: list[M] = []
    room = MESSAGE_BYTES
    for message in messages:
        size = message.ByteSize()
        if part and size > room:
            yield part
            part, room = [], MESSAGE_BYTES
        part.append(message)
        room -= size
    if part:
        yield part


def page_token(last: str, *, listing: str) -> str:
    """The token of the page after `last`. listing: what is listed, filters included."""
    return base64.urlsafe_b64encode(_check(last, listing) + last.encode()).decode().rstrip("=")


def last_of(token: str, *, listing: str) -> str:
    """The last name of the page before; empty for an empty token.

    Raises InvalidCall if the token is not one of this listing's.
    """
    if not token:
        return ""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        last = raw[_CHECK_BYTES:].decode()
    except ValueError as err:
        raise _refusal() from err
    if page_token(last, listing=listing) != token:
        raise _refusal()
    return last


def _check(last: str, listing: str) -> bytes:
    return hashlib.sha256(f"{listing}\0{last}".encode()).digest()[:_CHECK_BYTES]


def _refusal() -> InvalidCall:
    wrong = Violation("page_token", "not a token of this listing; start again without one")
    return InvalidCall("the page token is not one of this listing", [wrong], reason="BAD_PAGE_TOKEN")
