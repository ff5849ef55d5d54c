"""One call as connections bear it, and whose connections they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from grpc import StatusCode

from gateway.http2.reply import Answer, Reply

__all__ = ["ANSWER_WINDOW_BYTES", "Bearer", "Call", "Owner"]

# What the other side may send of an answer ahead of what was read.
ANSWER_WINDOW_BYTES = 1 << 18

T_contra = TypeVar("T_contra", contravariant=True)


class Bearer(Protocol):
    """The connection that a call is on."""

    def cancel(self, call: Call) -> None:
        """Break the call off."""

    def cut(self, call: Call) -> None:
        """Send no more of the call's request, and keep none of it."""


@dataclass(eq=False, slots=True)
class Call:
    """One call. head: its header block. body: its request as it is sent, never empty.

    holds: whether so many bytes more of its response may be held. ended: told once, how it ended.
    """

    head: bytes
    body: bytes
    reply: Reply
    holds: Callable[[int], bool]
    ended: Callable[[Answer], None]
    # Where it is sent; None before that, and once it has ended.
    bearer: Bearer | None = None
    stream: int = 0
    # Whether it is sent again, should the other side not have looked at it.
    wanted: bool = True
    # Whether it was refused before the other side looked at it, and so was sent again.
    again: bool = False
    # Of its body, how much has been sent, and how much more the other side takes; of its answer, how much we take.
    sent_bytes: int = 0
    there: int = 0
    here: int = ANSWER_WINDOW_BYTES

    def let_go(self) -> None:
        """Keep nothing of its request: it is not `wanted` any more, and is broken off later or ends by itself."""
        if self.bearer is not None:
            self.bearer.cut(self)

    def end(self, answer: Answer) -> None:
        """It has ended so."""
        self.bearer = None
        self.ended(answer)

    def fail(self, code: StatusCode, words: str) -> None:
        """It has ended so, and no more will come of it."""
        self.end(self.reply.failed(code, words))


class Owner(Protocol[T_contra]):
    """Whose connection it is."""

    def made(self, connection: T_contra) -> None:
        """Calls may be sent by it."""

    def has_room(self, connection: T_contra) -> None:
        """A call has ended, or more are allowed."""

    def refused(self, call: Call) -> None:
        """The other side has not looked at a call, which is to be sent anew."""

    def leaving(self, connection: T_contra) -> None:
        """No more calls can be sent by it, and those that are on it go on."""

    def lost(self, connection: T_contra) -> None:
        """It is no more, and nor are the calls on it."""
