"""What rules are to see of the methods in a set of files, as the mesh would admit them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from governance.contract import sheet
from governance.contract.types import full_name, messages
from governance.ownership import Ownership
from governance.words import Tool

__all__ = ["tools_in"]


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
                found[f"{name}/{method.name}"] = Tool(
                    service=name,
                    method=method.name,
                    domain=domain or "",
                    effect=read.effect,
                    stage=stated.lifecycle.stage,
                    data_classes=read.data_classes,
                    unclassified=read.unclassified,
                    hidden=stated.hidden,
                    needs_approval=read.options.needs_approval,
                    cost=read.options.cost,
                    labels=MappingProxyType(dict(stated.labels)),
                )
    return found
