"""One service as one endpoint serves it: linked, its options read and found sane.

Nothing here knows who may serve it; that is admission.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import MethodDescriptorProto, ServiceDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.catalog import Contract, Grant, Method, Step
from gateway.reading.descriptors import make_pool
from gateway.reading.pinned import pinned, pinned_messages
from gateway.reading.refusal import Refusal
from governance.contract.sheet import SPAN_MIN, DataClasses, MethodSheet, has_sheet, read_method, read_tool
from governance.contract.types import declared, messages, service_in
from llmesh.api.options.v1 import options_pb2 as options

__all__ = ["Candidate", "ContractReader", "read_candidate"]

NAME_MAX = 255
TITLE_MAX = 80
# They travel with each call, in a header.
USES_MAX = 32
# Of the methods that a note is about, so many are named.
NAMED = 3
# One tool with all its methods and options: what each listing of tools carries.
OPTIONS_BYTES = 64 << 10
SPAN_MIN_NANOS = SPAN_MIN.microseconds * 1000
USES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+/[A-Za-z_][A-Za-z0-9_]*")
# What acts on a terminal, or turns the direction of what follows. Lines may end.
UNSHOWABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Candidate:
    """A service that asks to be admitted.

    version: equal for two candidates that are the same tool: the contract's
    digest and, for one without our options, what the mesh file states. sheet:
    None if nobody states one. types: package -> full name -> fingerprint of
    each type that the contract defines outside the pinned files. pinned: it is
    defined in one of those itself. fault: the first of its options that is not
    sane; such a candidate may have no methods. note: what its owner may not
    have meant; empty if nothing.
    """

    service: str
    package: str
    version: str
    contract: Contract
    sheet: options.Tool | None
    methods: tuple[Method, ...]
    types: Mapping[str, Mapping[str, str]]
    pinned: bool = False
    fault: Step | None = None
    note: str = ""


class ContractReader:
    """Reads the services that a contract defines; what they share is read once."""

    def __init__(self, contract: Contract, pool: DescriptorPool | None = None) -> None:
        """pool: the contract's files linked, if they are already."""
        self._contract = contract
        self._pool = pool
        self._types = _types(contract)
        own = (file for file in contract.files if file.name not in pinned())
        self._classes = DataClasses({**pinned_messages(), **messages(own)})

    def read(self, service: str, *, grant: Grant | None) -> Candidate:
        """The service. grant: what the mesh file states for it. Raises Refusal if the contract doesn't define it."""
        contract = self._contract
        found = service_in(contract.files, service)
        if found is None:
            raise Refusal("WRONG_FILE", f"no file of the contract defines `{service}`")
        file, definition = found
        granted = None if has_sheet(definition) else grant
        sheet = _sheet(definition, granted)
        methods: tuple[Method, ...] = ()
        fault: Step | None = None
        try:
            _check(service, definition, sheet, granted)
            methods = tuple(_method(each, self._classes, granted) for each in definition.method)
            self._check_methods(methods)
        except Refusal as refusal:
            fault = refusal.step("options", service)
        return Candidate(
            service=service,
            package=file.package,
            version=contract.digest if granted is None else f"{contract.digest} {granted}",
            contract=contract,
            sheet=sheet,
            methods=methods,
            types=self._types,
            pinned=file.name in pinned(),
            fault=fault,
            note=_note(definition, granted),
        )

    def _check_methods(self, methods: tuple[Method, ...]) -> None:
        for method in methods:
            _check_options(method)
            if method.options.examples:
                self._pool = self._pool or make_pool(self._contract.files)
                _check_examples(method, self._pool)


def read_candidate(
    service: str, contract: Contract, *, grant: Grant | None, pool: DescriptorPool | None = None
) -> Candidate:
    """Read the contract of a service that it defines, as a ContractReader does."""
    return ContractReader(contract, pool).read(service, grant=grant)


def _sheet(definition: ServiceDescriptorProto, granted: Grant | None) -> options.Tool | None:
    if granted is not None:
        sheet = options.Tool(name=definition.name, domain=granted.domain, owner_team=granted.owner_team)
        sheet.lifecycle.stage = options.STAGE_EXPERIMENTAL
        return sheet
    return read_tool(definition) if has_sheet(definition) else None


def _method(definition: MethodDescriptorProto, classes: DataClasses, granted: Grant | None) -> Method:
    effect = dict(granted.effects).get(definition.name, "destructive") if granted is not None else None
    sheet: MethodSheet = read_method(definition, classes, granted=effect)
    return Method(
        name=definition.name,
        request_type=definition.input_type.removeprefix("."),
        response_type=definition.output_type.removeprefix("."),
        client_streaming=definition.client_streaming,
        server_streaming=definition.server_streaming,
        effect=sheet.effect,
        idempotent=sheet.idempotent,
        deadline=sheet.deadline,
        idle=sheet.idle,
        max_concurrency=sheet.max_concurrency,
        data_classes=sheet.data_classes,
        unclassified=sheet.unclassified,
        options=sheet.options,
    )


def _note(definition: ServiceDescriptorProto, granted: Grant | None) -> str:
    stated = dict(granted.effects) if granted is not None else {}
    unstated = [
        each.name
        for each in definition.method
        if not each.options.Extensions[options.method].effect and each.name not in stated
    ]
    if not unstated:
        return ""
    names = ", ".join(f"`{name[:TITLE_MAX]}`" for name in unstated[:NAMED])
    more = f" and {len(unstated) - NAMED} more" if len(unstated) > NAMED else ""
    where = "in the mesh file" if granted is not None else "as an option of the method"
    return (
        f"no effect is stated for {names}{more}, so that it counts as destructive, which few may call: say it {where}"
    )


def _types(contract: Contract) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for file in contract.files:
        if file.name not in pinned():
            found.setdefault(file.package, {}).update(declared(file))
    return found


def _check(service: str, definition: ServiceDescriptorProto, sheet: options.Tool | None, granted: Grant | None) -> None:
    for name in (service, *(each.name for each in definition.method)):
        if len(name) > NAME_MAX:
            raise Refusal("BAD_NAME", f"`{name[:TITLE_MAX]}...` is longer than {NAME_MAX} characters")
    if sheet is None:
        raise Refusal(
            "NO_OPTIONS",
            "the contract carries no llmesh.api.options.v1.tool: add it, or state domain, owner_team and effects "
            "for the service under `endpoints` in the mesh file",
        )
    if len(sheet.name) > TITLE_MAX:
        raise Refusal("BAD_OPTION", f"the tool's name is longer than {TITLE_MAX} characters")
    for each in (each for label in sheet.labels.items() for each in label if not LABEL.fullmatch(each)):
        raise Refusal(
            "BAD_OPTION", f"`{each[:TITLE_MAX]}` cannot be a label or its value: use a-z, 0-9, `_`, `.` and `-`"
        )
    size = definition.ByteSize()
    if size > OPTIONS_BYTES:
        raise Refusal(
            "OPTIONS_TOO_LARGE",
            f"the service with its options and those of its methods comes to {size} bytes, of {OPTIONS_BYTES}: "
            "shorten the summaries and examples, or make it two services",
        )
    _check_texts(sheet)
    if "\n" in sheet.name:
        raise Refusal("BAD_OPTION", f"the tool's name has several lines: `{sheet.name}`")
    _check_lifecycle(sheet.lifecycle)
    known = {each.name for each in definition.method}
    for name, _ in granted.effects if granted is not None else ():
        if name not in known:
            raise Refusal(
                "UNKNOWN_METHOD", f"the mesh file states an effect for `{name}`, which the service does not have"
            )


def _check_texts(stated: Message) -> None:
    for text in _texts(stated):
        if found := UNSHOWABLE.search(text):
            where = text[max(0, found.start() - 20) : found.end() + 20]
            raise Refusal(
                "BAD_OPTION", f"a text has the character U+{ord(found[0]):04X}, which is not shown: `{where}`"
            )


def _texts(message: Message) -> Iterator[str]:
    """Every text in it, however deep; our own options nest no deeper than they are defined."""
    for field, value in message.ListFields():
        for each in value if field.is_repeated else [value]:
            if isinstance(each, str):
                yield each
            elif isinstance(each, Message):
                yield from _texts(each)


def _check_lifecycle(lifecycle: options.Lifecycle) -> None:
    day = lifecycle.deprecated_from
    if lifecycle.stage == options.STAGE_DEPRECATED and not day:
        raise Refusal("NO_DEPRECATION_DATE", "a deprecated tool must say when it goes: set lifecycle.deprecated_from")
    try:
        good = not day or date.fromisoformat(day).isoformat() == day
    except ValueError:
        good = False
    if not good:
        raise Refusal("BAD_DATE", f"lifecycle.deprecated_from is `{day[:TITLE_MAX]}`; write the day as YYYY-MM-DD")


def _check_options(method: Method) -> None:
    stated = method.options
    _check_texts(stated)
    if len(stated.uses) > USES_MAX:
        raise Refusal("BAD_USES", f"`{method.name}` uses {len(stated.uses)} methods: a method uses at most {USES_MAX}")
    for each in stated.uses:
        if not USES.fullmatch(each) or len(each) > 2 * NAME_MAX:
            raise Refusal(
                "BAD_USES",
                f"`{method.name}` uses `{each[:NAME_MAX]}`; write `acme.engineering.v1.DocSearch/Retrieve`",
            )
    for name, span in _spans(stated):
        if span.seconds < 0 or span.nanos < 0 or not (span.seconds or span.nanos >= SPAN_MIN_NANOS):
            raise Refusal("BAD_DURATION", f"`{method.name}` has a {name} of less than a millisecond")


def _spans(stated: options.Method) -> Iterator[tuple[str, Duration]]:
    if stated.HasField("deadline"):
        yield "deadline", stated.deadline
    if stated.HasField("max_duration"):
        yield "max_duration", stated.max_duration
    if stated.HasField("idle_timeout"):
        yield "idle_timeout", stated.idle_timeout
    if stated.HasField("cacheable"):
        yield "cacheable", stated.cacheable


def _check_examples(method: Method, pool: DescriptorPool) -> None:
    for example in method.options.examples:
        texts = [("request", example.request_json, method.request_type)]
        if example.response_json:
            texts.append(("response", example.response_json, method.response_type))
        for role, text, type_name in texts:
            try:
                _parse_example(text, type_name, pool)
            # What else bad JSON makes of the parser: numbers out of range, nesting without end.
            except (json_format.ParseError, ValueError, TypeError, OverflowError, RecursionError) as err:
                reason = f"an example {role} of `{method.name}` is no {type_name}: {str(err)[:NAME_MAX]}"
                raise Refusal("BAD_EXAMPLE", reason) from err


def _parse_example(text: str, type_name: str, pool: DescriptorPool) -> None:
    # Only google.protobuf has types whose JSON is no object; the parser takes an empty list for any message.
    if not text.lstrip().startswith("{") and not type_name.startswith("google.protobuf."):
        raise ValueError("a message is a JSON object")
    message = GetMessageClass(pool.FindMessageTypeByName(type_name))()
    json_format.Parse(text, message, descriptor_pool=pool)
