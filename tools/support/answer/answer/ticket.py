"""A ticket by its id, as the mesh's catalog describes the tool that keeps it.

No stubs of that tool are needed: its contract is read from the catalog, in the caller's name.
"""

from collections.abc import AsyncIterator
from typing import cast

import grpc.aio
from google.protobuf.message import Message

from llmesh import ToolFailed, catalog
from llmesh.dynamic import invoke

__all__ = ["title_of"]

SERVICE, METHOD = "acme.support.v1.Tickets", "GetTicket"


async def title_of(channel: grpc.aio.Channel, ticket_id: str) -> str:
    """What the ticket is about. Fails as the catalog and the tool do: NotFound, Denied, Unavailable."""
    contract = await catalog.get_contract(channel, service=SERVICE)
    method = contract.method(SERVICE, METHOD)

    async def request() -> AsyncIterator[Message]:
        yield method.request({"id": ticket_id})

    async for response in invoke(channel, method, request()):
        ticket = cast("dict[str, str]", method.value(response).get("ticket", {}))
        if title := ticket.get("title", "").strip():
            return title
    message = f"`{SERVICE}` gave ticket `{ticket_id}` without a title"
    raise ToolFailed(message, reason="NO_TITLE")
