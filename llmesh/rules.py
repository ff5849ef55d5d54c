"""What of a message breaks the rules of its type, as callers are told."""

from __future__ import annotations

__all__ = ["violations"]

import json
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from llmesh.errors import Violation

if TYPE_CHECKING:
    import protovalidate
    from protovalidate import ViolationPb as _Violation

VIOLATIONS_MAX = 32
# A larger message may break so many rules that to find them all takes minutes.
ALL_VIOLATIONS_BYTES = 16 << 10


def violations(validator: protovalidate.Validator, message: Message) -> tuple[Violation, ...]:
    """The first of them, of a large message one; none if it is valid. Raises what protovalidate does for bad rules."""
    found = validator.collect_violations(message, fail_fast=True)
    if found and message.ByteSize() <= ALL_VIOLATIONS_BYTES:
        found = validator.collect_violations(message)
    return tuple(_violation(each.proto) for each in found[:VIOLATIONS_MAX])


def _violation(found: _Violation) -> Violation:
    """What the caller is told of one violation: path, words, rule."""
    path = ""
    for element in found.field.elements if found.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            key = element.subscript.value
            path += f"[{json.dumps(key)}]"
    return Violation(path, found.message or f"breaks the rule {found.rule_id}", found.rule_id)
