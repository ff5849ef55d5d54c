"""No way of writing a path gets a call past the rules of the method that it reaches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import quote

from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmesh.api.options.v1 import options_pb2 as options
from tests.envoy import Mesh, mesh, method_of, token, tool_of
from tests.hostile.calls import GOOD, good
from tests.hostile.connection import Connection, Header
from tests.hostile.obedient import Tool

SERVICE, OTHER = "acme.support.v1.Tickets", "acme.support.v1.Wages"
# The rules of tests/envoy.py let everyone read. The other service has a method of the same name that changes something.
ALLOWED, FORBIDDEN, ELSEWHERE = (f"/{path}".encode() for path in (f"{SERVICE}/Get", f"{SERVICE}/Erase", f"{OTHER}/Get"))
EXAMPLES = 400
# What some proxy or library takes for something else: separators, escapes, ends of texts.
ESCAPES = (b"%2f", b"%2F", b"%2e", b"%00", b"%25", b"\xc0\xaf", b"\xff", b"\\")
SEPARATORS = (b"/", b"//", b"/.", b"/..", b"/../", b".", b";", b"?", b"#", b":", b"@", b",", b"*", b"http://localhost")
BLANKS = (b"\0", b" ", b"\t", b"\r\n")
LETTERS = (b"x", b"Get")
PIECES = st.sampled_from((*ESCAPES, *SEPARATORS, *BLANKS, *LETTERS, ALLOWED, FORBIDDEN, ELSEWHERE))
REWRITES = (b"x-envoy-original-path", b"x-original-url", b"x-rewrite-url", b"x-forwarded-prefix", b":path", b"host")
CALLERS = (b"x-http-method-override", b"x-llmesh-subject", b"x-llmesh-roles", b"x-envoy-decorator-operation")
FIELDS: st.SearchStrategy[Header] = st.tuples(
    st.sampled_from((*REWRITES, *CALLERS)), st.sampled_from((FORBIDDEN, ELSEWHERE, ALLOWED, b"/", b"owner"))
)


@st.composite
def paths(draw: st.DrawFn) -> bytes:
    """One of the methods' paths, cut up and put together in another way; or anything at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=64))
    path = draw(st.sampled_from([ALLOWED, FORBIDDEN, ELSEWHERE]))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.sampled_from(_ends(path)) | st.integers(0, len(path)))
        match draw(st.sampled_from(["insert", "replace", "escape", "case", "cut"])):
            case "insert":
                path = path[:at] + draw(PIECES | st.binary(min_size=1, max_size=2)) + path[at:]
            case "replace":
                path = path[:at] + draw(PIECES) + path[at + 1 :]
            case "escape":
                path = path[:at] + b"".join(b"%%%02x" % byte for byte in path[at : at + 1]) + path[at + 1 :]
            case "case":
                path = path[:at] + path[at : at + 1].swapcase() + path[at + 1 :]
            case _:
                path = path[:at] + path[at + 1 :]
    return path


def _ends(path: bytes) -> list[int]:
    """Where a path and its parts begin and end."""
    slashes = [at for at, byte in enumerate(path) if byte == ord("/")]
    return sorted({0, len(path), *slashes, *(at + 1 for at in slashes)})


@asynccontextmanager
async def watched() -> AsyncGenerator[tuple[Mesh, Tool]]:
    """A server of which anybody may call one method of one service, and nobody the others."""
    async with mesh() as running:
        tool, path = Tool(), f"{running.folder}/watched.sock"
        async with await asyncio.start_unix_server(tool.serve, path):
            methods = (method_of("Get"), method_of("Erase", options.EFFECT_DESTRUCTIVE))
            closed = tool_of(OTHER, f"unix:{path}", method_of("Get", options.EFFECT_DESTRUCTIVE))
            await running.publish(tool_of(SERVICE, f"unix:{path}", *methods), closed)
            yield running, tool


Asked: TypeAlias = Callable[[bytes, Sequence[Header]], list[bytes]]


def asking(running: Mesh, tool: Tool) -> Asked:
    """What makes one request, and returns the paths that the tool sees of it."""
    signed = token()

    def asked(path: bytes, fields: Sequence[Header]) -> list[bytes]:
        tool.paths.clear()
        with Connection(running.port) as connection:
            connection.answer(connection.request([*good(signed, path), *fields], GOOD))
        return tool.paths.copy()

    return asked


async def test_a_tool_sees_the_path_that_was_authorised_or_nothing() -> None:
    async with watched() as (running, tool):
        asked = asking(running, tool)

        @settings(max_examples=EXAMPLES, deadline=None, database=None)
        @given(paths(), st.lists(FIELDS, max_size=2))
        @example(FORBIDDEN, [])
        @example(ELSEWHERE, [])
        @example(b"/" + SERVICE.encode() + b"/.." + ELSEWHERE, [])
        @example(quote(ALLOWED).encode(), [])
        @example(ALLOWED, [(b"x-envoy-original-path", FORBIDDEN)])
        def sees_only_what_was_authorised(path: bytes, fields: list[Header]) -> None:
            seen = asked(path, fields)
            assert seen in ([], [ALLOWED])
            assert not seen or path == ALLOWED

        await asyncio.to_thread(sees_only_what_was_authorised)
        assert await asyncio.to_thread(asked, ALLOWED, []) == [ALLOWED]


def near() -> set[bytes]:
    """Every path that is one change away from one that is allowed."""
    found = {ALLOWED.upper(), ALLOWED.lower()}
    for at in range(len(ALLOWED)):
        before, byte, after = ALLOWED[:at], ALLOWED[at : at + 1], ALLOWED[at + 1 :]
        changed = (byte.swapcase(), byte + byte, b"", b"%%%02x" % ALLOWED[at], b"%%%02X" % ALLOWED[at])
        found.update(before + each + after for each in changed)
    for at in _ends(ALLOWED):
        found.update(ALLOWED[:at] + each + ALLOWED[at:] for each in (*ESCAPES, *SEPARATORS, *BLANKS, *LETTERS))
    return found - {ALLOWED}


async def test_no_path_that_is_one_change_away_reaches_a_tool() -> None:
    async with watched() as (running, tool):
        asked = asking(running, tool)

        def reach() -> dict[bytes, list[bytes]]:
            return {path: seen for path in sorted(near()) if (seen := asked(path, []))}

        assert await asyncio.to_thread(reach) == {}
        assert await asyncio.to_thread(asked, ALLOWED, []) == [ALLOWED]
