"""What `llmesh policy` reads: policy files, contracts, callers, recorded calls."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any as Untyped
from typing import cast

import grpc.aio
from google.protobuf.json_format import ParseDict, ParseError

from governance.bundle import Bundle, parse_bundle
from governance.contract.facts import tools_in
from governance.diff import Recorded
from governance.issuers import derive, parse_issuers
from governance.ownership import Ownership, parse_ownership
from governance.policy_file import CallerEntry
from governance.words import Caller, Outcome, Tool
from llmesh.api.catalog.v1 import catalog_pb2
from llmesh.api.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from llmesh.api.records.v1 import records_pb2
from llmesh.cli.protoc import compile_protos
from llmesh.cli.session import Session
from llmesh.document import DocumentError, parse_document
from llmesh.dynamic import UnknownMethod, split_method
from llmesh.errors import NotFound
from llmesh.problem import Problem

TIMEOUT_S = 30.0
TOKEN_PARTS = 3
FILE_ENDS = frozenset({".json", ".yaml", ".yml"})
_OUTCOMES = {records_pb2.OUTCOME_ALLOWED: Outcome.ALLOW, records_pb2.OUTCOME_DENIED: Outcome.DENY}


@dataclass(frozen=True, slots=True)
class Policies:
    """A folder of policy files. ownership: None if the folder does not say who owns what."""

    bundle: Bundle
    ownership: Ownership | None


def read_policies(folder: Path) -> Policies:
    """The rules of a folder, and who owns what. Raises Problem."""
    owners = folder / "ownership.yaml"
    try:
        ownership = parse_ownership(_text(owners)) if owners.exists() else None
        domains = {f"domains/{path.name}": _text(path) for path in sorted(folder.glob("domains/*.yaml"))}
        return Policies(parse_bundle(_text(folder / "mesh.yaml"), domains, ownership=ownership), ownership)
    except DocumentError as error:
        raise Problem(f"{folder}/{error}") from error


def read_contracts(folders: Iterable[Path], policies: Policies) -> Mapping[str, Tool]:
    """Every method that folders of .proto files define, as rules see it. Raises Problem."""
    found: dict[str, Tool] = {}
    for folder in folders:
        found |= tools_in(compile_protos(folder), _owners(policies))
    return found


def read_mesh(methods: Collection[str], policies: Policies, session: Session) -> Mapping[str, Tool]:
    """Those of the methods that the mesh has and its caller may see, as rules see them."""
    services = sorted({method_path(method).partition("/")[0] for method in methods})
    return session.run(lambda channel: _known_to(channel, services, _owners(policies)))


async def _known_to(channel: grpc.aio.Channel, services: Iterable[str], ownership: Ownership) -> dict[str, Tool]:
    found: dict[str, Tool] = {}
    stub = CatalogServiceStub(channel)
    for service in services:
        try:
            answer = await stub.GetContract(catalog_pb2.GetContractRequest(service=service), timeout=TIMEOUT_S)
            told = await stub.GetTool(catalog_pb2.GetToolRequest(service=service), timeout=TIMEOUT_S)
        except NotFound:
            continue
        # The mesh file may state effects for a contract that states none.
        effects = {f"{service}/{method.name}": method.effect for method in told.tool.methods}
        methods = tools_in(answer.files.file, ownership)
        found |= {name: replace(tool, effect=effects[name]) for name, tool in methods.items() if name in effects}
    return found


def method_path(method: str) -> str:
    """The method as "acme.support.v1.Tickets/GetTicket", however it is written. Raises Problem."""
    try:
        return "/".join(split_method(method))
    except UnknownMethod as error:
        raise Problem(str(error)) from error


def read_caller(who: str, folder: Path) -> Caller:
    """The caller that a file states, or that a token would be by the folder's issuers. Raises Problem."""
    path = Path(who)
    # A signature may begin like such a name, and is longer.
    if who.count(".") == TOKEN_PARTS - 1 and path.suffix not in FILE_ENDS:
        return _caller_of_token(who, folder)
    try:
        return parse_document(CallerEntry, _text(path), file=who).caller()
    except DocumentError as error:
        raise Problem(str(error)) from error


def _caller_of_token(token: str, folder: Path) -> Caller:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        issuers = parse_issuers(_text(folder / "issuers.yaml")).issuers
        issuer = next((each for each in issuers if each.issuer == claims["iss"]), None)
    except (binascii.Error, ValueError, LookupError, TypeError) as error:
        if isinstance(error, DocumentError):
            raise Problem(f"{folder}/{error}") from error
        raise Problem("the token cannot be read", "name a file that says who calls, or a token of an issuer") from error
    if issuer is None:
        known = ", ".join(each.issuer for each in issuers)
        raise Problem(f"no issuer of {folder}/issuers.yaml is `{claims['iss']}`", f"expected one of {known}")
    return derive(issuer, claims)


def read_calls(path: Path) -> Mapping[Recorded, int]:
    """How often calls are recorded that rules decided, of what `llmesh audit --json` printed.

    That is one document, or one record a line.
    """
    text = sys.stdin.read() if str(path) == "-" else _text(path)
    try:
        found = Counter[Recorded]()
        for record in _records(text):
            if call := _recorded(record):
                found[call] += record.counted or 1
    except (ValueError, TypeError, ParseError) as error:
        raise Problem(f"`{path}` holds no decision records: {error}", "write them: llmesh audit --json") from error
    return found


def _records(text: str) -> Iterator[records_pb2.Record]:
    try:
        parts = [json.loads(text)]
    except ValueError:
        parts = [json.loads(line) for line in text.splitlines() if line.strip()]
    for part in parts:
        if not isinstance(part, dict):
            raise TypeError("expected an object a line")
        whole = cast("dict[str, Untyped]", part)
        for record in whole.get("records", [whole]):
            yield ParseDict(record, records_pb2.Record(), ignore_unknown_fields=True)


def _recorded(record: records_pb2.Record) -> Recorded | None:
    """None for one that rules did not decide, and for that of a call's start: its end has another."""
    if record.phase == records_pb2.Record.PHASE_START or record.outcome not in _OUTCOMES:
        return None
    told = record.caller
    caller = Caller(told.issuer, told.subject, tuple(told.roles), told.domain, tuple(told.clearances), told.actor)
    return Recorded(caller, f"{record.service}/{record.method}", _OUTCOMES[record.outcome])


def _owners(policies: Policies) -> Ownership:
    if policies.ownership is None:
        raise Problem("the policy files do not say whose tools are", "put ownership.yaml beside mesh.yaml")
    return policies.ownership


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Problem(f"`{path}` is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"`{path}` cannot be read: {error}") from error
