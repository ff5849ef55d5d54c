"""What asking for contracts costs everybody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb

from gateway.catalog import CatalogBoard, Contract, Tool
from gateway.services import symbols
from gateway.services.contracts import Contracts
from gateway.services.reflection import TOOLS_A_TURN, Conversation
from gateway.services.visible import View
from tests.gateway.services.world import (
    AGENT,
    DOC_SEARCH,
    ENGINEER,
    ESCALATIONS,
    OVERSEER,
    TICKET_TOOL,
    permitted,
    small_mesh,
)

Request = pb.ServerReflectionRequest


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, one after another."""
    names: list[str] = []
    reading = symbols._read  # pyright: ignore[reportPrivateUsage]

    def counted(proto: FileDescriptorProto) -> symbols.File:
        names.append(proto.name)
        return reading(proto)

    monkeypatch.setattr(symbols, "_read", counted)
    return names


async def board_of(*tools: Tool) -> CatalogBoard:
    board = CatalogBoard()
    await board.post({tool.service: tool for tool in tools}, {})
    return board


def many(count: int) -> list[Tool]:
    """Tools of as many contracts."""
    tool = small_mesh()[DOC_SEARCH]
    return [
        replace(tool, service=f"acme.open.v1.Tool{each}", contract=Contract(str(each), tool.contract.files))
        for each in range(count)
    ]


async def test_a_contract_is_read_and_cut_once_however_often_it_is_asked_for(read: list[str]) -> None:
    tools = small_mesh()
    contracts = Contracts(View(await board_of(*tools.values()), permitted))
    first = contracts.files(tools[TICKET_TOOL].contract, ENGINEER)
    assert [service.name for file in first for service in file.service] == ["Tickets"]
    before = len(read)

    again = contracts.files(tools[TICKET_TOOL].contract, ENGINEER)

    assert again == first
    assert len(read) == before


async def test_a_contract_that_is_seen_whole_is_not_read_at_all(read: list[str]) -> None:
    tools = small_mesh()
    contracts = Contracts(View(await board_of(*tools.values()), permitted))
    assert contracts.files(tools[ESCALATIONS].contract, AGENT) == list(tools[ESCALATIONS].contract.files)
    assert read == []


async def test_a_symbol_is_looked_for_only_where_there_are_files_of_its_package(read: list[str]) -> None:
    view = View(await board_of(*small_mesh().values()), permitted)
    talk = Conversation(view, Contracts(view), ENGINEER)

    nowhere = await talk.answer(Request(file_containing_symbol="acme.nowhere.v1.Nothing"))
    assert nowhere.HasField("error_response")
    assert read == []

    docs = await talk.answer(Request(file_containing_symbol="acme.engineering.v1.Nothing"))
    assert docs.HasField("error_response")
    assert "acme/engineering/v1/docs.proto" in read
    assert "acme/support/v1/tickets.proto" not in read

    shared = await talk.answer(Request(file_containing_symbol="acme.common.v1.Page"))
    assert shared.HasField("file_descriptor_response")


async def test_what_came_and_went_is_looked_for_and_forgotten() -> None:
    tools = small_mesh()
    board = await board_of(tools[DOC_SEARCH])
    view = View(board, permitted)
    talk = Conversation(view, Contracts(view), ENGINEER)
    asked = Request(file_containing_symbol="acme.support.v1.Ticket")
    assert (await talk.answer(asked)).HasField("error_response")

    await board.post({TICKET_TOOL: tools[TICKET_TOOL]}, {})
    assert (await talk.answer(asked)).HasField("file_descriptor_response")

    await board.post({}, {})
    assert (await talk.answer(asked)).HasField("error_response")


@pytest.mark.parametrize(
    "asked",
    [
        Request(file_containing_symbol="acme.common.v1.Nothing"),
        Request(file_by_filename="nothing.proto"),
        Request(all_extension_numbers_of_type="acme.common.v1.Nothing"),
    ],
    ids=["symbol", "file", "extensions"],
)
async def test_looking_through_all_contracts_lets_others_have_their_turns(
    asked: pb.ServerReflectionRequest,
) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    view = View(await board_of(*many(4 * TOOLS_A_TURN)), permitted)
    talk = Conversation(view, Contracts(view), OVERSEER)
    task = asyncio.create_task(others())
    answer = await talk.answer(asked)
    task.cancel()
    assert answer.HasField("error_response")
    assert turns >= 4
