"""Options that are not sane are refused with what to do about them."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from gateway.catalog import Grant, Step
from gateway.reading.candidate import Candidate, read_candidate
from gateway.reading.descriptors import link
from llmesh.api.options.v1 import options_pb2 as options
from tests.gateway.discovery.world import contract

TICKETS = "acme.support.v1.Tickets"


def read(file: FileDescriptorProto, grant: Grant | None = None) -> Candidate:
    service = f"{file.package}.{file.service[0].name}"
    return read_candidate(service, link(service, [file]).contract, grant=grant)


def with_options(tool: str = "", method: str = "") -> FileDescriptorProto:
    file = contract()
    text_format.Parse(tool, file.service[0].options.Extensions[options.tool])
    text_format.Parse(method, file.service[0].method[0].options.Extensions[options.method])
    return file


GOOD = [
    ("lifecycle {stage: STAGE_DEPRECATED deprecated_from: '2026-12-01' successor: 'acme.support.v2.Tickets'}", ""),
    ("labels {key: 'language' value: 'en'}", ""),
    (f"summary: '{'x' * 65000}'", ""),
    ("", "uses: 'acme.engineering.v1.DocSearch/Retrieve'"),
    ("", "examples {request_json: '{\"id\": \"1\"}' response_json: '{}'}"),
    ("", "deadline {nanos: 1000000}"),
    ("", "deadline {seconds: 5} cacheable {seconds: 60}"),
]
BAD = [
    ("lifecycle {stage: STAGE_DEPRECATED}", "", "NO_DEPRECATION_DATE"),
    ("lifecycle {stage: STAGE_DEPRECATED deprecated_from: 'soon'}", "", "BAD_DATE"),
    ("lifecycle {deprecated_from: '20261201'}", "", "BAD_DATE"),
    ("lifecycle {deprecated_from: '2026-02-30'}", "", "BAD_DATE"),
    (f"name: '{'x' * 81}'", "", "BAD_OPTION"),
    ("labels {key: 'Language' value: 'en'}", "", "BAD_OPTION"),
    (f"summary: '{'x' * 65536}'", "", "OPTIONS_TOO_LARGE"),
    (f"summary: '{'x' * 40000}'", f"summary: '{'x' * 40000}'", "OPTIONS_TOO_LARGE"),
    ("", "uses: 'DocSearch'", "BAD_USES"),
    ("", "uses: 'acme.engineering.v1.DocSearch/Retrieve' " * 33, "BAD_USES"),
    ("", "uses: '/acme.engineering.v1.DocSearch/Retrieve'", "BAD_USES"),
    ("", "deadline {seconds: -5}", "BAD_DURATION"),
    ("", "deadline {}", "BAD_DURATION"),
    ("", "deadline {nanos: 1}", "BAD_DURATION"),
    ("", "max_duration {nanos: 999999}", "BAD_DURATION"),
    ("", "idle_timeout {nanos: 499}", "BAD_DURATION"),
    ("", "deadline {seconds: 1 nanos: -1}", "BAD_DURATION"),
    ("", "examples {request_json: 'id'}", "BAD_EXAMPLE"),
    ("", "examples {request_json: '{\"no_such_field\": 1}'}", "BAD_EXAMPLE"),
    ("", "examples {request_json: '{}' response_json: '[]'}", "BAD_EXAMPLE"),
    ("", f"examples {{request_json: '{'[' * 3000}'}}", "BAD_EXAMPLE"),
    ("", f"examples {{request_json: '{'9' * 5000}'}}", "BAD_EXAMPLE"),
    ("", "examples {request_json: ''}", "BAD_EXAMPLE"),
]


@pytest.mark.parametrize(("tool", "method"), GOOD)
def test_good_options_are_taken(tool: str, method: str) -> None:
    assert read(with_options(tool, method)).fault is None


@pytest.mark.parametrize(("tool", "method", "reason"), BAD)
def test_bad_options_are_refused(tool: str, method: str, reason: str) -> None:
    fault = read(with_options(tool, method)).fault
    assert fault is not None
    assert (fault.name, fault.reason, fault.passed) == ("options", reason, False)
    assert 0 < len(fault.message) < 600


def test_a_service_without_options_and_without_a_grant_is_refused() -> None:
    fault = read(contract(domain="")).fault
    assert fault is not None
    assert fault.reason == "NO_OPTIONS"


def test_a_grant_for_a_method_that_is_not_there_is_refused() -> None:
    fault = read(contract(domain=""), Grant(TICKETS, "support", "team", (("Gett", "read"),))).fault
    assert isinstance(fault, Step)
    assert fault.reason == "UNKNOWN_METHOD"


def test_a_grant_does_not_change_what_a_contract_says_of_itself() -> None:
    asked = read(contract(), Grant(TICKETS, "handbook", "team", (("Get", "read"),)))
    assert asked.sheet is not None
    assert asked.sheet.domain == "support"
    assert asked.methods[0].effect == options.EFFECT_DESTRUCTIVE
    assert asked.version == asked.contract.digest


def test_a_name_beyond_255_characters_is_refused() -> None:
    file = contract()
    file.service[0].method[0].name = "G" * 256
    fault = read(file).fault
    assert fault is not None
    assert fault.reason == "BAD_NAME"


def test_a_method_without_an_effect_is_noted_for_it_counts_as_destructive() -> None:
    assert "`Get`, so that it counts as destructive" in read(contract()).note
    assert read(with_options(method="effect: EFFECT_WRITE")).note == ""
    granted = Grant(TICKETS, "support", "team", (("Get", "read"),))
    assert read(contract(domain=""), granted).note == ""
    assert "in the mesh file" in read(contract(domain=""), Grant(TICKETS, "support", "team")).note
    many = contract()
    many.service[0].method.extend([many.service[0].method[0]] * 4)
    for number, method in enumerate(many.service[0].method):
        method.name = f"M{number}"
    assert "`M0`, `M1`, `M2` and 2 more" in read(many).note
