"""`llmesh call`: call any method on the mesh with JSON."""

from __future__ import annotations

import asyncio
import base64
import codecs
import contextlib
import json as json_text
import logging
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Annotated

import typer

from llmesh.cli.options import AddressOption, AsOption, HomeOption, JsonOption
from llmesh.cli.output import print_json, print_json_line, print_warning
from llmesh.problem import Problem

if TYPE_CHECKING:
    import grpc.aio
    from google.protobuf.message import Message

    from llmesh.dynamic import Metadata, Method

# What gRPC lets travel as metadata.
HEADER_NAME = re.compile(r"[a-z0-9_.-]+")
HEADER_VALUE = re.compile(r"[ -~]*")
STDIN_READ_BYTES = 64 * 1024


def call(
    method: Annotated[str, typer.Argument(help="The method, e.g. acme.engineering.v1.DocSearch/Retrieve.")],
    request: Annotated[
        str,
        typer.Argument(metavar="JSON", help="The request, or - for stdin. To stream: an array, or one after another."),
    ] = "{}",
    *,
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout", min=0.001, help="Seconds until you give up. Default: the method's own deadline."),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="NAME: VALUE", help="Metadata to send. Repeatable.")
    ] = None,
    name: AsOption = "",
    home: HomeOption = None,
    address: AddressOption = "",
    json: JsonOption = False,
) -> None:
    """Call a method: JSON in, JSON out, its types taken from its contract.

    A stream's responses come one a line, as they come; with --json every response is one line.
    """
    from llmesh.cli.session import open_session
    from llmesh.dynamic import BadJson, UnknownMethod, split_method

    session = open_session(home, address, name=name)
    metadata = [_header(text) for text in header or ()]

    async def work(channel: grpc.aio.Channel) -> None:
        found = await _find(channel, *split_method(method))
        await _call(channel, found, requests=_values(request), timeout_s=timeout_s, metadata=metadata, lines=json)

    try:
        with _warnings_shown(json=json):
            session.run(work)
    except UnknownMethod as err:
        raise Problem(str(err), "see what there is: llmesh tools list") from err
    except BadJson as err:
        raise Problem(
            f"the request does not fit: {err}", f"see an example: llmesh tools show {method.split('/')[0]}"
        ) from err


@contextlib.contextmanager
def _warnings_shown(*, json: bool) -> Generator[None]:
    """Show what answers come with to be told to their readers."""
    from llmesh._warnings import LOGGER

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print_warning(record.getMessage(), json_line=json)

    logger, shown = logging.getLogger(LOGGER), Shown()
    logger.addHandler(shown)
    try:
        yield
    finally:
        logger.removeHandler(shown)


async def _find(channel: grpc.aio.Channel, service: str, name: str) -> Method:
    """The method, by its tool's contract."""
    from llmesh import catalog
    from llmesh.errors import NotFound
    from llmesh.nearest import nearest_tool

    try:
        contract = await catalog.get_contract(channel, service=service)
    except NotFound as err:
        await _hear_refusal(channel, f"/{service}/{name}")
        err.message += nearest_tool(service, name, [tool.service for tool in await catalog.list_tools(channel)])
        raise
    return contract.method(service, name)


async def _hear_refusal(channel: grpc.aio.Channel, path: str) -> None:
    """Raise Denied, with the rule and its reason, if a rule keeps the caller from a tool that the catalog hides.

    The request is a byte that begins no message of any type, so that nothing
    could come of a call that is let through after all.
    """
    from llmesh.errors import Denied, MeshError

    try:
        await channel.unary_unary(path)(b"\xff")
    except Denied:
        raise
    except MeshError:
        return


async def _call(
    channel: grpc.aio.Channel,
    method: Method,
    *,
    requests: AsyncIterator[object],
    timeout_s: float | None,
    metadata: Metadata,
    lines: bool,
) -> None:
    """Make the call and print each response."""
    from llmesh.cli.packed import learn_packed, learn_sent
    from llmesh.dynamic import invoke

    # A request that doesn't fit ends a call from within gRPC, where what was wrong with it is lost.
    failed: list[Exception] = []

    async def messages() -> AsyncIterator[Message]:
        try:
            async for value in requests:
                message = method.request(value)
                learn_sent(message)
                yield message
        except Exception as err:  # raised again below
            failed.append(err)
            raise

    show = print_json_line if lines or method.descriptor.server_streaming else print_json
    try:
        async for response in invoke(channel, method, messages(), timeout_s=timeout_s, metadata=metadata):
            await learn_packed(channel, response)
            show(method.value(response))
    except (Exception, asyncio.CancelledError):
        if failed:
            raise failed[0] from None
        raise


async def _values(text: str) -> AsyncIterator[object]:
    """The JSON values of an argument, or of stdin as they come; an array's elements one by one."""
    pieces = _stdin() if text == "-" else _once(text)
    decoder = json_text.JSONDecoder()
    rest = ""
    wrong: ValueError | None = None
    async for piece in pieces:
        rest = (rest + piece).lstrip()
        while rest:
            try:
                value, end = decoder.raw_decode(rest)
            except ValueError as err:
                wrong = err
                break
            rest = rest[end:].lstrip()
            for one in value if isinstance(value, list) else [value]:  # pyright: ignore[reportUnknownVariableType] parsed JSON
                yield one
    if rest:
        raise Problem(f"the request is not JSON: {wrong}", 'quote it for your shell: \'{"query": "..."}\'')


async def _once(text: str) -> AsyncIterator[str]:
    yield text


async def _stdin() -> AsyncIterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while data := await _read(sys.stdin.fileno()):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as err:
        raise Problem("the request is not UTF-8", "stdin is read as UTF-8") from err


def _read(file: int) -> asyncio.Future[bytes]:
    """The next bytes of a file that may be silent for long.

    A thread of the loop's own, or one that holds sys.stdin, would keep the process from ending until they come.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[bytes] = loop.create_future()

    def settle(data: bytes, error: OSError | None) -> None:
        if found.done():
            return
        if error:
            found.set_exception(error)
        else:
            found.set_result(data)

    def read() -> None:
        data, error = b"", None
        try:
            data = os.read(file, STDIN_READ_BYTES)
        except OSError as err:
            error = err
        # The loop is closed if nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, data, error)

    threading.Thread(target=read, name="llmesh stdin", daemon=True).start()
    return found


def _header(text: str) -> tuple[str, str | bytes]:
    """A header as gRPC takes it: "-bin" ones are base64. What it would not take, it would not explain either."""
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not colon or not name:
        raise Problem(f"`{text}` is no header", "write it like --header 'name: value'")
    name = name.lower()
    if not HEADER_NAME.fullmatch(name):
        raise Problem(f"`{name}` is no header's name", "a name has letters, digits, `_`, `.` and `-`")
    if name.endswith("-bin"):
        try:
            return name, base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
        except ValueError as err:
            raise Problem(f"the header `{name}` is not base64: `{value}`", "a `-bin` header's value is base64") from err
    if not HEADER_VALUE.fullmatch(value):
        raise Problem(
            f"the header `{name}` has a character that no header can hold",
            "a value is printable ASCII; anything else goes in a header whose name ends in `-bin`, as base64",
        )
    return name, value
