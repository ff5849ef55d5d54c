"""The contracts of a fleet: one service of three methods each, in a package of its own, spread over eight domains."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from llmesh.api.options.v1 import options_pb2 as options

DOMAINS = ("support", "engineering", "handbook", "writing", "finance", "legal", "sales", "people")
METHODS = {"Find": options.EFFECT_READ, "Get": options.EFFECT_READ, "Update": options.EFFECT_WRITE}
FIELDS = ("id", "query", "language", "customer_name", "page_token")


def domain_of(number: int) -> str:
    """The domain that owns the tool of this number."""
    return DOMAINS[number % len(DOMAINS)]


def service_of(number: int) -> str:
    """Full name of the tool's service."""
    return f"{_package(number)}.Tool{number:05d}"


def ownership() -> str:
    """The ownership file of the fleet."""
    owners = (f"  acme.{domain}: {domain}\n" for domain in DOMAINS)
    return "".join(("owners:\n", "  llmesh: platform\n", *owners))


def contract(number: int) -> FileDescriptorProto:
    """The tool's one file, with what a product sheet usually says."""
    package = _package(number)
    file = FileDescriptorProto(name=f"{package.replace('.', '/')}/tool.proto", package=package, syntax="proto3")
    file.dependency.append("llmesh/api/options/v1/options.proto")
    service = file.service.add(name=service_of(number).rpartition(".")[2])
    service.options.Extensions[options.tool].CopyFrom(_sheet(number))
    for name, effect in METHODS.items():
        _add_message(file.message_type.add(name=f"{name}Request"), "asked of")
        _add_message(file.message_type.add(name=f"{name}Response"), "answered by")
        method = service.method.add(
            name=name, input_type=f".{package}.{name}Request", output_type=f".{package}.{name}Response"
        )
        stated = method.options.Extensions[options.method]
        stated.effect, stated.cost = effect, options.COST_LOW
        stated.summary = f"{name}s what tool {number} keeps, for callers who may."
        stated.deadline.seconds = 5
        stated.examples.add(summary="the first one", request_json='{"id": "1", "query": "what is new"}')
    return file


def _package(number: int) -> str:
    return f"acme.{domain_of(number)}.t{number:05d}.v1"


def _sheet(number: int) -> options.Tool:
    domain = domain_of(number)
    sheet = options.Tool(
        name=f"Tool {number}",
        summary=f"One of the many things that {domain} knows how to look up, number {number}.",
        domain=domain,
        owner_team=f"{domain}-tools",
        product_owner=f"owner-{number}@example.com",
        contact=f"#{domain}-tools",
        labels={"language": "en", "tier": "gold"},
    )
    sheet.lifecycle.stage = options.STAGE_STABLE
    return sheet


def _add_message(message: DescriptorProto, meaning: str) -> None:
    for position, name in enumerate(FIELDS, start=1):
        field = message.field.add(
            name=name,
            number=position,
            type=FieldDescriptorProto.TYPE_STRING,
            label=FieldDescriptorProto.LABEL_OPTIONAL,
        )
        stated = field.options.Extensions[options.field]
        stated.data_class = options.DATA_CLASS_INTERNAL
        stated.meaning = f"the {name} {meaning} the tool"
