"""A small mesh, made by hand, and two people who see different parts of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc.aio
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from gateway.blocks.blocks import Blocks
from gateway.blocks.store import TABLES, Store
from gateway.catalog import CatalogBoard, Contract, Endpoint, Method, Report, Tool
from gateway.clock import SystemClock
from gateway.cuts import Cuts
from gateway.database import open_database
from gateway.prompts import Prompts
from gateway.search.learner import Learner
from gateway.services.blocks import Blocking
from gateway.services.platform import platform_tools
from gateway.services.serve import Permissions, serve
from gateway.services.visible import View
from gateway.sources.lease import Leases
from governance.contract import sheet
from governance.contract.digest import digest
from governance.contract.normalise import normalise
from governance.contract.types import messages, service_in
from governance.words import Caller, Decision, Outcome
from llmesh import Caller as SdkCaller
from llmesh.api.options.v1 import options_pb2
from llmesh.caller import caller_to_metadata
from llmesh.embedding import Embedded, NotEmbeddedError
from llmesh.home import Home

ENGINEER = Caller(issuer="test", subject="erin", roles=("developer",), domain="engineering")
AGENT = Caller(issuer="test", subject="sam", roles=("agent",), domain="support")
OVERSEER = Caller(issuer="test", subject="pat", roles=("platform",), domain="platform")
NOBODY = Caller()
DOMAINS = ("engineering", "support", "platform")

COMMON = """
  name: "acme/common/v1/common.proto" package: "acme.common.v1" syntax: "proto3"
  message_type { name: "Page" field { name: "size" number: 1 type: TYPE_UINT32 label: LABEL_OPTIONAL } }
"""

DOCS = """
  name: "acme/engineering/v1/docs.proto" package: "acme.engineering.v1" syntax: "proto3"
  dependency: "llmesh/api/options/v1/options.proto" dependency: "acme/common/v1/common.proto"
  message_type {
    name: "FindRequest"
    field {
      name: "query" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL
      options { [llmesh.api.options.v1.field] { meaning: "What to look for in the handbook" } }
    }
    field { name: "page" number: 2 type: TYPE_MESSAGE type_name: ".acme.common.v1.Page" label: LABEL_OPTIONAL }
  }
  message_type {
    name: "FindResponse"
    field { name: "kind" number: 1 type: TYPE_ENUM type_name: ".acme.engineering.v1.Kind" label: LABEL_OPTIONAL }
  }
  enum_type { name: "Kind" value { name: "KIND_UNSPECIFIED" number: 0 } value { name: "KIND_GUIDE" number: 1 } }
  service {
    name: "DocSearch"
    method {
      name: "Find" input_type: ".acme.engineering.v1.FindRequest" output_type: ".acme.engineering.v1.FindResponse"
      options { [llmesh.api.options.v1.method] {
        summary: "Finds passages." effect: EFFECT_READ
        examples { summary: "Set up a laptop" request_json: "{\\"query\\": \\"laptop\\"}" }
      } }
    }
    options { [llmesh.api.options.v1.tool] {
      name: "Documentation search" summary: "Answers from the engineering documentation." domain: "engineering"
      owner_team: "docs" slo { availability: 0.99 }
    } }
  }
"""

TICKETS = """
  name: "acme/support/v1/tickets.proto" package: "acme.support.v1" syntax: "proto2"
  dependency: "llmesh/api/options/v1/options.proto" dependency: "acme/common/v1/common.proto"
  message_type {
    name: "Ticket"
    field { name: "id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    extension_range { start: 100 end: 200 }
  }
  extension {
    name: "colour" number: 101 type: TYPE_STRING label: LABEL_OPTIONAL extendee: ".acme.support.v1.Ticket"
  }
  service {
    name: "Tickets"
    method {
      name: "GetTicket" input_type: ".acme.support.v1.Ticket" output_type: ".acme.support.v1.Ticket"
      options { [llmesh.api.options.v1.method] { summary: "Reads one ticket." effect: EFFECT_READ } }
    }
    method {
      name: "DeleteTicket" input_type: ".acme.support.v1.Ticket" output_type: ".acme.support.v1.Ticket"
      options { [llmesh.api.options.v1.method] { summary: "Deletes a ticket." } }
    }
    options { [llmesh.api.options.v1.tool] {
      name: "Tickets" summary: "Keeps the customers' tickets." domain: "support" labels { key: "language" value: "en" }
    } }
  }
  service {
    name: "Escalations"
    method { name: "Escalate" input_type: ".acme.support.v1.Ticket" output_type: ".acme.support.v1.Ticket" }
    options { [llmesh.api.options.v1.tool] { name: "Escalations" domain: "support" hidden: true } }
  }
"""

DOC_SEARCH, TICKET_TOOL, ESCALATIONS = (
    "acme.engineering.v1.DocSearch",
    "acme.support.v1.Tickets",
    "acme.support.v1.Escalations",
)
MAY: Mapping[str, Mapping[str, frozenset[str]]] = {
    "erin": {DOC_SEARCH: frozenset({"Find"}), TICKET_TOOL: frozenset({"GetTicket"})},
    "sam": {
        TICKET_TOOL: frozenset({"GetTicket", "DeleteTicket"}),
        ESCALATIONS: frozenset({"Escalate"}),
    },
}


def permitted(tool: Tool, caller: Caller) -> frozenset[str]:
    """What the table says; for pat everything; of the platform's tools what reads; nothing for nobody."""
    everything = frozenset(method.name for method in tool.methods)
    if not caller.subject:
        return frozenset()
    if caller == OVERSEER or tool.service.startswith("acme.open."):
        return everything
    if tool.domain == "platform":
        return frozenset(method.name for method in tool.methods if method.effect == options_pb2.EFFECT_READ)
    return MAY.get(caller.subject, {}).get(tool.service, frozenset())


def foreseen(tool: Tool, method: str, caller: Caller) -> Decision | None:
    """As the table says; what becomes of pat's calls hangs on how they come."""
    if caller == OVERSEER:
        return None
    if method in permitted(tool, caller):
        return Decision(Outcome.ALLOW, "mesh/table", "the table says so")
    return Decision(Outcome.DENY, "", "no rule permits")


def owner_of(service: str) -> str | None:
    """`acme.support` belongs to support, and so on."""
    organisation, _, rest = service.partition(".")
    return rest.partition(".")[0] if organisation == "acme" else None


def files_of(*texts: str) -> list[FileDescriptorProto]:
    """The files that the texts spell, with our options file and what it needs."""
    found = [text_format.Parse(text, FileDescriptorProto()) for text in texts]
    waiting = [options_pb2.DESCRIPTOR]
    while waiting:
        file = waiting.pop()
        found.append(FileDescriptorProto.FromString(file.serialized_pb))
        waiting.extend(file.dependencies)
    return list({file.name: file for file in found}.values())


def tool_of(service: str, *texts: str, ready: bool = True, address: str = "unix:/run/tool.sock") -> Tool:
    """The tool that the texts define, at one address."""
    return tool_from(service, files_of(*texts), ready=ready, address=address)


def tool_from(
    service: str, given: Iterable[FileDescriptorProto], *, ready: bool = True, address: str = "unix:/run/tool.sock"
) -> Tool:
    """The tool that the files define, at one address."""
    files = normalise(given)
    found = service_in(files, service)
    assert found
    classes = sheet.DataClasses(messages(files))
    endpoint = Endpoint(address, "lease")
    methods: list[Method] = []
    for method in found[1].method:
        read = sheet.read_method(method, classes)
        methods.append(
            Method(
                name=method.name,
                request_type=method.input_type[1:],
                response_type=method.output_type[1:],
                client_streaming=method.client_streaming,
                server_streaming=method.server_streaming,
                effect=read.effect,
                idempotent=read.idempotent,
                deadline=read.deadline,
                idle=read.idle,
                max_concurrency=read.max_concurrency,
                data_classes=read.data_classes,
                unclassified=read.unclassified,
                options=read.options,
            )
        )
    stated = sheet.read_tool(found[1])
    live = frozenset({endpoint}) if ready else frozenset[Endpoint]()
    return Tool(service, stated.domain, stated, tuple(methods), Contract(digest(files), files), (endpoint,), live)


@dataclass(frozen=True, slots=True)
class Mesh:
    """The gateway's services on sockets of their own, over a board that the test posts to."""

    home: Home
    board: CatalogBoard
    services: grpc.aio.Channel
    registry: grpc.aio.Channel
    blocks: Blocks

    async def post(self, *tools: Tool, reports: Iterable[Report] = ()) -> None:
        """Make these the catalog."""
        by_address = {report.endpoint.address: report for report in reports}
        await self.board.post({tool.service: tool for tool in tools}, by_address)


@asynccontextmanager
async def mesh(
    *tools: Tool, reports: Iterable[Report] = (), others: Callable[[View], Sequence[object]] = lambda _: ()
) -> AsyncGenerator[Mesh]:
    """Serve these tools, and others beside the services, for as long as the block lasts."""
    with TemporaryDirectory(prefix="mesh") as folder:
        home, board = Home(Path(folder)).create(), CatalogBoard()
        permissions, clock = Permissions(permitted, foreseen, owner_of, lambda: None), SystemClock()
        blocks = Blocks(
            Store(cache(lambda: open_database(f"sqlite:///{home.database}", TABLES)), home.blocks), clock=clock
        )
        blocking = Blocking(
            blocks, _enforced, cut=Cuts(board).cut, domains=lambda: DOMAINS, issuers=lambda: ["test"], clock=clock
        )
        async with (
            serve(
                *(home, board, Leases(home.leases, clock=clock)),
                own=platform_tools(f"unix:{home.services_socket}"),
                permissions=permissions,
                blocking=blocking,
                prompts_of=Prompts().of,
                learner=Learner(_embed_nothing, home.tool_vectors),
                clock=clock,
                others=others,
            ),
            grpc.aio.insecure_channel(f"unix:{home.own(home.services_socket)}") as services,
            grpc.aio.insecure_channel(f"unix:{home.own(home.registry_socket)}") as registry,
        ):
            made = Mesh(home, board, services, registry, blocks)
            await made.post(*tools, reports=reports)
            yield made


async def _embed_nothing(_: Sequence[str]) -> Embedded:
    raise NotEmbeddedError("nothing is embedded here")


async def _enforced() -> bool:
    return True


def by(caller: Caller) -> tuple[tuple[str, str], ...]:
    """The metadata with which Envoy names a caller."""
    fields = (caller.issuer, caller.subject, caller.roles, caller.domain, caller.clearances, caller.actor)
    return caller_to_metadata(SdkCaller(*fields))


def small_mesh() -> dict[str, Tool]:
    """Three tools; the last is in a hidden service, in one file with the second."""
    made = (tool_of(DOC_SEARCH, COMMON, DOCS), *(tool_of(name, COMMON, TICKETS) for name in (TICKET_TOOL, ESCALATIONS)))
    return {tool.service: tool for tool in made}
