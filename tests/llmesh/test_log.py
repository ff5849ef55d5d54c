"""What a tool's log says: by whom it is read, and about which call."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress

import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoServicer, EchoStub

import llmesh
from llmesh.log import JsonFormatter, TextFormatter

PROGRAM = """
import logging
logging.getLogger("library").setLevel(logging.DEBUG)
from llmesh.log import configure_logging
configure_logging()
logging.getLogger("library").debug("chatter")
# As grpcio says it.
logging.getLogger("grpc._cython.cygrpc").error("Invalid encoding on %s", b"a secret\\xff")
logging.getLogger("tool").warning("index is old", extra={"days": 9, "name_of": ""})
"""
ID = "0f0e"


class Shouting(EchoServicer):
    """Logs what it does, by another logger than the SDK's."""

    async def Unary(self, request: pb.UnaryRequest, context: object) -> pb.UnaryResponse:
        logging.getLogger("shouting").info("looked it up", extra={"rows": 3})
        if request.text == "fail":
            raise llmesh.Unavailable("away")
        return pb.UnaryResponse(text=request.text.upper())


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """The log as a tool writes it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


async def logged(written: io.StringIO, text: str = "a", **caller: str) -> dict[str, dict[str, object]]:
    """The records of a call by their events. caller: what the mesh says of it beside its id."""
    metadata = [("x-llmesh-call-id", ID), *((f"x-llmesh-{name}", value) for name, value in caller.items())]
    with tempfile.TemporaryDirectory(prefix="log-") as folder:
        async with (
            llmesh.Server(Shouting(), address=f"unix:{folder}/t.sock") as server,  # pyright: ignore[reportAbstractUsage] the rest is not called
            llmesh.Mesh(server.address) as mesh,
        ):
            with suppress(llmesh.MeshError):
                await EchoStub(mesh.channel).Unary(pb.UnaryRequest(text=text), metadata=metadata)
    return {record["event"]: record for record in map(json.loads, written.getvalue().splitlines())}


async def test_what_a_tool_asks_in_its_own_right_is_no_line_unless_it_fails(written: io.StringIO) -> None:
    itself = {"issuer": "llmesh", "subject": "acme.tea.v1.Tea"}

    assert "call answered" not in await logged(written, **itself)
    assert (await logged(written, "fail", **itself))["call answered"]["code"] == "UNAVAILABLE"


async def test_whatever_is_logged_during_a_call_says_which_call(written: io.StringIO) -> None:
    records = await logged(written)

    call = {"call_id": ID, "service": "acme.testing.v1.Echo", "method": "Unary"}
    for event in ("looked it up", "call answered"):
        assert records[event].items() >= call.items()
    assert records["looked it up"]["rows"] == 3
    assert "call_id" not in records["serving"]


def test_a_program_reads_json_and_no_library_chatter() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stderr
    [record] = map(json.loads, said.splitlines())
    assert (record["event"], record["days"]) == ("index is old", 9)


def test_a_person_at_a_terminal_reads_lines() -> None:
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", PROGRAM], stderr=theirs, check=True)
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert said.split(" ", 1)[1] == "WARNING index is old days=9\r\n"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_traceback_stays_with_its_record(formatter: logging.Formatter) -> None:
    with pytest.raises(ValueError, match="gone") as raised:
        int("gone")
    caught = (raised.type, raised.value, raised.tb)
    record = logging.LogRecord("tool", logging.ERROR, __file__, 1, "failed", None, caught)
    assert "ValueError: invalid literal" in formatter.format(record)
