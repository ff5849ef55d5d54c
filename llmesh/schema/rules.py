"""What a contract asks of a field: protovalidate's rules, and LL-Mesh's words on what it means.

Options that can't be read raise protobuf's DecodeError.
"""

from __future__ import annotations

__all__ = ["Asked", "asked_of_field", "asked_of_items", "asked_of_oneof", "oneof_rules", "span"]

from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.descriptor_pb2 import FieldOptions, MessageOptions, OneofOptions

from buf.validate import validate_pb2 as validate
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.schema.errors import LeftOutError
from llmesh.schema.limits import Limits

NO_RULES = validate.FieldRules()


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of the values of one field, or of its items.

    rules: protovalidate's. needed: the field must be there. nonzero: and its value must not be the type's zero.
    spared: a zero need not keep the rules. description: for people and models; empty if there is none.
    """

    rules: validate.FieldRules
    needed: bool = False
    nonzero: bool = False
    spared: bool = False
    description: str = ""


def asked_of_field(field: FieldDescriptor) -> Asked:
    """What the contract asks of a field."""
    # A contract's own pool gives options that know no extension: read again, ours are found.
    stated = FieldOptions.FromString(field.GetOptions().SerializeToString())
    meant = stated.Extensions[options.field]
    unit = f"unit: {meant.unit}" if meant.unit else ""
    words = f"{meant.meaning} ({unit})" if meant.meaning and unit else meant.meaning or unit
    rules = stated.Extensions[validate.field]
    if rules.ignore == validate.IGNORE_ALWAYS:
        rules = NO_RULES
    needed = rules.required or field.is_required
    return Asked(
        rules,
        needed=needed,
        nonzero=rules.required and not field.has_presence,
        spared=rules.ignore == validate.IGNORE_IF_ZERO_VALUE and not rules.required,
        description=words,
    )


def asked_of_items(rules: validate.FieldRules) -> Asked:
    """What is asked of each item of a list, or key or value of a map."""
    return Asked(NO_RULES if rules.ignore == validate.IGNORE_ALWAYS else rules)


def asked_of_oneof(oneof: OneofDescriptor) -> bool:
    """Whether one of its fields must be set."""
    stated = OneofOptions.FromString(oneof.GetOptions().SerializeToString())
    return stated.Extensions[validate.oneof].required


def oneof_rules(message: Descriptor) -> list[validate.MessageOneofRule]:
    """The rules by which at most one of some fields is set, oneof or not."""
    stated = MessageOptions.FromString(message.GetOptions().SerializeToString())
    return list(stated.Extensions[validate.message].oneof)


def span(least: int, most: int | None, *, limit: int, limits: Limits) -> tuple[int, int]:
    """How few and how many: the contract's least and most within the limit.

    most: None if the contract says nothing. Raises LeftOutError if nothing is between, or too much is demanded.
    """
    if least > limits.demand:
        raise LeftOutError(f"its rules demand {least}, and {limits.demand} is the most")
    if most is not None and least > most:
        raise LeftOutError("its rules leave no value")
    return least, max(least, limit if most is None else min(most, limit))
