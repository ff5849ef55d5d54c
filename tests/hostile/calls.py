"""Every way in which a caller attacks the mesh, what it must be answered, and that nobody else is harmed.

Each case goes through a connection of its own. Whatever became of it, the next
good call must succeed: on the same connection where that still stands, and on
a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias
from urllib.parse import unquote

from acme.testing.v1 import echo_pb2 as pb

from tests.hostile.connection import Answer, Connection, Header, grpc_frame

PATH = b"/acme.testing.v1.Echo/Unary"
GOOD = grpc_frame(pb.UnaryRequest(text="good").SerializeToString())


class End(StrEnum):
    """What a call may come to."""

    ANSWERED = "answered"
    FAILED = "answered, but not well"
    HTTP = "answered as HTTP is"
    RESET = "its stream is reset"
    GONE = "its connection is ended"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Request:
    """One request with something wrong. set: in place of what a good one has; first, added: around all that."""

    set: Mapping[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    without: Sequence[bytes] = ()
    first: Sequence[Header] = ()
    added: Sequence[Header] = ()
    body: bytes = GOOD
    trailers: Sequence[Header] = ()

    def __call__(self, connection: Connection, token: str) -> int:
        """Send it; the number of its stream."""
        own = {**dict(good(token)), **self.set}
        kept = [(name, value) for name, value in own.items() if name not in self.without]
        return connection.request([*self.first, *kept, *self.added], self.body, trailers=self.trailers)


def good(token: str, path: bytes = PATH) -> list[Header]:
    """The fields of a good call."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"authorization", f"Bearer {token}".encode()),
    ]


# What is done on a connection, given a token; returns the stream that must be answered, if one must.
Act: TypeAlias = Callable[[Connection, str], int | None]


@dataclass(frozen=True, slots=True)
class Case:
    """One attack. code, words: of its answer, where it has one. preface: False to say nothing before it.

    window: how many bytes of an answer it will take.
    """

    name: str
    act: Act
    end: End
    code: int = 0
    words: str = ""
    preface: bool = True
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attack. unlike: how that differs from what is due; empty if it does not.

    good_calls, failed: those made after it.
    """

    unlike: str
    good_calls: int
    failed: int


def attempt(case: Case, port: int, token: str) -> Outcome:
    """Make one attack on the mesh at a port of this machine, and the good calls after it."""
    with Connection(port, preface=case.preface, window=case.window) as connection:
        stream = case.act(connection, token)
        answer = connection.answer(stream) if stream is not None else Answer()
        if case.end is End.GONE:
            connection.wait_gone()
        unlike = _difference(case, answer, connection)
        after = [] if connection.gone or case.end is End.NOTHING else [call_well(connection, token)]
        with Connection(port) as fresh:
            after.append(call_well(fresh, token))
    return Outcome(unlike, len(after), after.count(False))


def call_well(connection: Connection, token: str) -> bool:
    """Whether a good call is answered well."""
    answer = connection.answer(connection.request(good(token), GOOD))
    return answer.get("grpc-status") == "0" and answer.data[5:].startswith(b"\x0a\x04good")


def _difference(case: Case, answer: Answer, connection: Connection) -> str:
    code, words = answer.get("grpc-status"), unquote(answer.get("grpc-message"))
    told = f"code {code}, {words!r}, status {answer.get(':status')}, reset {answer.reset}, gone {connection.gone}"
    match case.end:
        case End.ANSWERED:
            fits = code == str(case.code) and case.words in words
        case End.FAILED:
            fits = code not in ("", "0")
        case End.HTTP:
            fits = answer.get(":status") == str(case.code) and answer.data.decode() == case.words
        case End.RESET:
            fits = answer.reset is not None and not code
        case End.GONE:
            fits = connection.gone and code != "0"
        case End.NOTHING:
            fits = True
    return "" if fits else f"{case.name}: {told}"
