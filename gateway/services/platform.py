"""The mesh's own services as tools: catalog, records, reflection and health.

They stand in the catalog like any tool, so rules, visibility and routing need
no special case for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodDescriptorProto, MethodOptions
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.catalog import Contract, Endpoint, Method, Tool
from governance.contract import sheet
from governance.contract.digest import digest
from governance.contract.normalise import normalise
from governance.contract.types import messages, service_in
from governance.ownership import PLATFORM
from llmesh.api.blocks.v1 import blocks_pb2
from llmesh.api.catalog.v1 import catalog_pb2
from llmesh.api.mesh.v1 import mesh_pb2
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.records.v1 import records_pb2
from llmesh.reflection import V1, V1ALPHA, v1_file

# The source of the endpoint of the gateway's own services.
OWN = "gateway"
# A stream that watches is silent for as long as nothing changes.
_LONGEST = timedelta(hours=1)

_SAFE = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)
# Watches stay open, and one caller's must not leave another without an answer.
_CALLS_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class _Own:
    """A service of ours. name and summary: for one whose contract carries no sheet."""

    service: str
    files: tuple[FileDescriptorProto, ...]
    name: str = ""
    summary: str = ""


def platform_tools(address: str) -> tuple[Tool, ...]:
    """The tools that the gateway serves itself at the address, in order of their names.

    All belong to the domain `platform`, and handle only what the caller may
    see of the catalog. A method without a sheet reads.
    """
    endpoint = Endpoint(address, OWN)
    return tuple(_tool(own, endpoint) for own in sorted(_owned(), key=lambda own: own.service))


def _owned() -> Iterator[_Own]:
    yield _Own("llmesh.api.blocks.v1.BlockService", _closure(blocks_pb2.DESCRIPTOR.name))
    yield _Own("llmesh.api.catalog.v1.CatalogService", _closure(catalog_pb2.DESCRIPTOR.name))
    yield _Own("llmesh.api.mesh.v1.MeshService", _closure(mesh_pb2.DESCRIPTOR.name))
    yield _Own("llmesh.api.records.v1.RecordService", _closure(records_pb2.DESCRIPTOR.name))
    yield _Own(
        "grpc.health.v1.Health",
        _closure(health_pb2.DESCRIPTOR.name),
        "Health",
        "Says whether a tool on the mesh answers now.",
    )
    hands_out = "Hands out the contracts of the tools on the mesh."
    yield _Own(V1, (v1_file(),), "Reflection", hands_out)
    yield _Own(V1ALPHA, _closure(reflection_pb2.DESCRIPTOR.name), "Reflection v1alpha", hands_out)


def _tool(own: _Own, endpoint: Endpoint) -> Tool:
    files = normalise(own.files)
    found = service_in(files, own.service)
    if found is None:
        raise LookupError(own.service)
    _, service = found
    stated = sheet.read_tool(service)
    if own.name:
        stated = options.Tool(name=own.name, summary=own.summary)
        stated.owner_team = stated.product_owner = stated.contact = PLATFORM
        stated.lifecycle.stage = options.STAGE_STABLE
    stated.domain = PLATFORM
    classes, granted = sheet.DataClasses(messages(files)), "read" if own.name else None
    return Tool(
        service=own.service,
        domain=PLATFORM,
        sheet=stated,
        methods=tuple(
            _method(own, method, sheet.read_method(method, classes, granted=granted)) for method in service.method
        ),
        contract=Contract(digest(files), files),
        endpoints=(endpoint,),
        ready=frozenset({endpoint}),
    )


def _method(own: _Own, method: MethodDescriptorProto, read: sheet.MethodSheet) -> Method:
    stated = options.Method()
    stated.CopyFrom(read.options)
    stated.cost = options.COST_LOW
    made = Method(
        name=method.name,
        request_type=method.input_type.removeprefix("."),
        response_type=method.output_type.removeprefix("."),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        effect=read.effect,
        # One that says nothing of it may do more than it reads: a fan-out writes for its caller.
        idempotent=own.name != "" or method.options.idempotency_level in _SAFE,
        deadline=read.deadline,
        idle=read.idle,
        max_concurrency=_CALLS_AT_ONCE,
        # What contracts say of themselves is for people inside; nobody's data is in it.
        data_classes=("internal",),
        unclassified=False,
        options=stated,
    )
    return replace(made, deadline=_LONGEST, idle=_LONGEST) if method.server_streaming else made


def _closure(name: str) -> tuple[FileDescriptorProto, ...]:
    """The file and all it imports, as compiled into our own stubs."""
    waiting, found = [name], dict[str, FileDescriptorProto]()
    while waiting:
        name = waiting.pop()
        if name not in found:
            file = descriptor_pool.Default().FindFileByName(name)
            found[name] = FileDescriptorProto.FromString(file.serialized_pb)
            waiting.extend(found[name].dependency)
    return tuple(found.values())
