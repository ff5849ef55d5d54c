"""What rules are to see of the methods in a set of files, as the mesh would admit them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from governance.contract import sheet
from governance.contract.types import full_name, messages
from governance.ownership import Ownership
from governance.words import Tool
from llmesh.api.options.v1 import options_pb2 as options

__all__ = ["Stated", "facts_of", "tools_in"]


class Stated(Protocol):
    """What a contract states of a method, unset values made restrictive."""

    @property
    def effect(self) -> int:
        """Of options.Effect."""
        ...

    @property
    def data_classes(self) -> tuple[str, ...]:
        """Names of the classes of data in request and response."""
        ...

    @property
    def unclassified(self) -> bool:
        """Whether a field has no class."""
        ...

    @property
    def options(self) -> options.Method:
        """As written."""
        ...


def facts_of(service: str, method: str, *, domain: str, tool: options.Tool, stated: Stated) -> Tool:
    """One method as rules see it. tool: the sheet of its service."""
    return Tool(
        service=service,
        method=method,
        domain=domain,
        effect=stated.effect,
        stage=tool.lifecycle.stage or options.STAGE_EXPERIMENTAL,
        data_classes=stated.data_classes,
        unclassified=stated.unclassified,
        hidden=tool.hidden,
        needs_approval=stated.options.needs_approval,
        cost=stated.options.cost or options.COST_HIGH,
        labels=MappingProxyType(dict(tool.labels)),
    )


def tools_in(files: Iterable[FileDescriptorProto], ownership: Ownership) -> Mapping[str, Tool]:
    """Every method of a package that a domain owns, by "acme.support.v1.Tickets/GetTicket".

    files: with all that they import, lest their fields count as unclassified.
    """
    known = list(files)
    classes = sheet.DataClasses(messages(known))
    found: dict[str, Tool] = {}
    for file in known:
        domain = ownership.domain_of(file.package)
        for service in file.service if domain else ():
            name, stated = full_name(file.package, service.name), sheet.read_tool(service)
            for method in service.method:
                read = sheet.read_method(method, classes)
                found[f"{name}/{method.name}"] = facts_of(
                    name, method.name, domain=domain or "", tool=stated, stated=read
                )
    return found
