"""Reads the contracts of what an endpoint serves, each within what it may define."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from gateway.catalog import Endpoint, Step
from gateway.reading.candidate import Candidate, ContractReader
from gateway.reading.descriptors import link
from gateway.reading.reflect import CONTRACTS, Limits
from gateway.reading.refusal import Refusal

__all__ = ["read_contracts"]

log = logging.getLogger(__name__)

Services = Mapping[str, tuple[FileDescriptorProto, ...]]


def read_contracts(services: Services, endpoint: Endpoint, limits: Limits) -> list[Candidate | Step]:
    """The services as their files have them, or the step at which they fail."""
    read: list[Candidate | Step] = []
    room = CONTRACTS * limits.definitions
    for names, files in _by_contract(services):
        room -= (found := _definitions(files, limits.definitions))
        if found > limits.definitions or room < 0:
            read += [_too_many(limits).step("link", name) for name in names]
        else:
            read += _read_contract(names, files, endpoint)
    return read


def _by_contract(services: Services) -> Iterable[tuple[list[str], tuple[FileDescriptorProto, ...]]]:
    """Services that need the same files, which are linked once for all of them."""
    found: dict[tuple[int, ...], tuple[list[str], tuple[FileDescriptorProto, ...]]] = {}
    for service, files in services.items():
        found.setdefault(tuple(map(id, files)), ([], files))[0].append(service)
    return found.values()


def _definitions(files: Iterable[FileDescriptorProto], most: int) -> int:
    """How many messages, fields, enums, values, services and methods files define; counted no further than most."""
    found = 0
    for file in files:
        found += len(file.message_type) + len(file.extension) + len(file.enum_type) + len(file.service)
        found += sum(len(each.value) for each in file.enum_type) + sum(len(each.method) for each in file.service)
        waiting = list(file.message_type) if found <= most else []
        while waiting and found <= most:
            each = waiting.pop()
            found += len(each.nested_type) + len(each.field) + len(each.extension) + len(each.enum_type)
            found += sum(len(enum.value) for enum in each.enum_type)
            waiting.extend(each.nested_type)
        if found > most:
            break
    return found


def _read_contract(
    services: Sequence[str], files: Sequence[FileDescriptorProto], endpoint: Endpoint
) -> list[Candidate | Step]:
    try:
        linked = link(services[0], files)
        reader = ContractReader(linked.contract, linked.pool)
        return [_read_service(reader, service, endpoint) for service in services]
    except Refusal as refusal:
        return [refusal.step("link", service) for service in services]
    # The edge to what a stranger sent: whatever it makes of our code stays its own problem.
    except Exception:
        log.exception("contract could not be read", extra={"address": endpoint.address, "services": services})
        return [_internal().step("link", service) for service in services]


def _read_service(reader: ContractReader, service: str, endpoint: Endpoint) -> Candidate | Step:
    try:
        return reader.read(service, grant=endpoint.grant_for(service))
    except Refusal as refusal:
        return refusal.step("link", service)
    # As above: it costs that service alone.
    except Exception:
        log.exception("contract could not be read", extra={"address": endpoint.address, "service": service})
        return _internal().step("link", service)


def _internal() -> Refusal:
    return Refusal("INTERNAL", "the gateway failed to read this contract; see its log")


def _too_many(limits: Limits) -> Refusal:
    return Refusal(
        "CONTRACT_TOO_LARGE",
        f"the contract defines more than {limits.definitions} messages, fields, values and methods with all that it "
        f"imports, or the endpoint's contracts together {CONTRACTS} times as many: leave out what no method needs",
    )
