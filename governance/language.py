"""CEL, the language of rules: text -> a checked expression.

The one module that knows the CEL library. It type-checks against facts.proto,
so a rule that names a field that does not exist is refused with a caret, and
it translates the checked syntax tree into expression.py's closed one. What
that tree has no place for is refused here, with what to write instead, and so
never reaches a compiler that could get it wrong.
"""

from __future__ import annotations

from functools import cache
from typing import Any as Untyped

from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs] - its stubs are inside it
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from governance.expression import SUPPORTED, Call, Const, Expression, Field, Value, fields_of
from llmesh.api.policy.v1 import facts_pb2

LISTS = frozenset({Field("caller", "roles"), Field("caller", "clearances"), Field("tool", "data_classes")})
LABELS = Field("tool", "labels")

_ADDRESSED = ("_==_", "_!=_", "@in", "startsWith", "endsWith", "contains")

# Conditions of `?:` within each other. What is left of a rule once a tool is known holds each condition twice.
MAX_CONDITIONS = 4

_INSTEAD = {
    "matches": "use startsWith, endsWith, contains or ==",
    "_[_]": "only `tool.labels[...]` can be indexed; use `in` for lists",
}


class LanguageError(Exception):
    """A rule's expression is not one the mesh can hold. The message says where and what to write instead."""


@cache
def _environment() -> cel.Env:
    package = "llmesh.api.policy.v1"
    return cel.NewEnv(
        facts_pb2.DESCRIPTOR.pool,
        variables={name.lower(): cel.Type(f"{package}.{name}") for name in ("Caller", "Tool", "Context")},
        container="llmesh.api.options.v1",
    )


def compile_rule(text: str) -> Expression:
    """The expression of a rule's `when`. Raises LanguageError, its message ending in a caret where CEL gives one."""
    try:
        text.encode()
        return _compile(text)
    except UnicodeEncodeError as error:
        raise LanguageError("half of a character (a lone surrogate) cannot be compared with anything") from error
    except (TypeError, DecodeError, RecursionError) as error:
        raise LanguageError("the expression is nested too deep, or is not one that can be read; write less") from error


def _compile(text: str) -> Expression:
    try:
        compiled = _environment().compile(text)
    except RuntimeError as error:
        raise LanguageError(_plain(str(error))) from error
    if compiled.return_type() != cel.Type.BOOL:
        raise LanguageError(f"`{text}` is a {compiled.return_type().name()}, and must be true or false")
    checked: Untyped = _checked_type().FromString(Any.FromString(compiled.serialize()).value)
    expression = _translate(checked.expr, {entry.key: entry.value for entry in checked.reference_map})
    _check_shapes(expression)
    _check_context(expression)
    if _conditions_of(expression) > MAX_CONDITIONS:
        raise LanguageError(
            f"conditions of `?:` stand within each other more than {MAX_CONDITIONS} deep; use `&&`, `||` and `!`"
        )
    return expression


def _plain(message: str) -> str:
    return (
        message.removeprefix("INVALID_ARGUMENT: ")
        .removesuffix(" [INVALID_ARGUMENT]")
        .removeprefix("CANCELLED: ")
        .removesuffix(" [CANCELLED]")
        .replace("ERROR: <input>:", "column ")
    )


def _translate(node: Untyped, references: dict[int, Untyped]) -> Expression:
    reference = references.get(node.id)
    if reference is not None and reference.HasField("value"):
        return _constant(reference.value)
    match node.WhichOneof("expr_kind"):
        case "const_expr":
            return _constant(node.const_expr)
        case "select_expr" if not node.select_expr.test_only and node.select_expr.operand.HasField("ident_expr"):
            return Field(node.select_expr.operand.ident_expr.name, node.select_expr.field)
        case "select_expr" if _is_label(node.select_expr.operand):
            label = node.select_expr.field
            raise LanguageError(
                f"labels are read as `tool.labels['{label}']`, and asked for as `'{label}' in tool.labels`"
            )
        case "select_expr":
            raise LanguageError(
                "`has` is of no use: every field always has a value; compare it, as in `tool.domain != ''`"
            )
        case "ident_expr":
            name = node.ident_expr.name
            raise LanguageError(f"`{name}` cannot be used whole; name one of its fields, as in `{name}.domain`")
        case "call_expr":
            return _translate_call(node.call_expr, references)
        case "list_expr":
            return _translate_list(node.list_expr, references)
        case "comprehension_expr":
            raise LanguageError("macros such as `exists` and `all` are not supported; use `in`, `&&` and `||`")
        case kind:
            raise LanguageError(
                f"a {(kind or 'empty').removesuffix('_expr')} expression is not supported; compare a field instead"
            )


def _is_label(operand: Untyped) -> bool:
    select = operand.select_expr
    return select.operand.ident_expr.name == LABELS.root and select.field == LABELS.name


def _translate_call(call: Untyped, references: dict[int, Untyped]) -> Expression:
    arguments = [*([call.target] if call.HasField("target") else []), *call.args]
    if call.function not in SUPPORTED:
        instead = _INSTEAD.get(
            call.function, "use comparisons, `in`, startsWith, endsWith, contains, size, `&&`, `||` and `!`"
        )
        raise LanguageError(f"`{call.function.strip('_')}` is not supported; {instead}")
    return Call(call.function, tuple(_translate(argument, references) for argument in arguments))


def _translate_list(elements: Untyped, references: dict[int, Untyped]) -> Const:
    values = [_translate(element, references) for element in elements.elements]
    texts = [value.value for value in values if isinstance(value, Const) and isinstance(value.value, str)]
    if len(texts) != len(values):
        raise LanguageError("a list can only hold text, as in `caller.domain in ['support', 'sales']`")
    return Const(tuple(texts))


def _constant(constant: Untyped) -> Const:
    kind = constant.WhichOneof("constant_kind")
    if kind not in ("bool_value", "int64_value", "string_value"):
        raise LanguageError(f"a {(kind or 'null').removesuffix('_value')} constant has no fact to be compared with")
    return Const(getattr(constant, kind))


def _check_shapes(expression: Expression) -> None:
    """Refuse lists and labels anywhere but where Envoy and this library treat them alike."""
    if not isinstance(expression, Call):
        return
    for position, argument in enumerate(expression.arguments):
        is_list = argument in LISTS or (isinstance(argument, Const) and isinstance(argument.value, tuple))
        if is_list and not (expression.function == "size" or (expression.function == "@in" and position == 1)):
            raise LanguageError("a list can only stand to the right of `in`, or in size()")
        if argument == LABELS and not (
            expression.function in ("size", "_[_]") or (expression.function == "@in" and position == 1)
        ):
            raise LanguageError("`tool.labels` can only be indexed, or stand to the right of `in`, or in size()")
        _check_shapes(argument)
    if expression.function == "_[_]" and (
        expression.arguments[0] != LABELS or not isinstance(expression.arguments[1], Const)
    ):
        raise LanguageError(_INSTEAD["_[_]"])


def _check_context(expression: Expression) -> None:
    """Refuse the context anywhere but where Envoy compares it by itself: in tests joined by and, or and not."""
    match expression:
        case Call("_&&_" | "_||_" | "!_", arguments):
            for argument in arguments:
                _check_context(argument)
        case Call(function, (Field("context"), Const(value))) if function in _ADDRESSED and value and _is_whole(value):
            pass
        case _ if any(found.root == "context" for found in fields_of(expression)):
            raise LanguageError(
                "`context.address` can only be compared with text that is not empty, on the left of ==, !=, in, "
                "startsWith, endsWith or contains, and such comparisons only be joined by `&&`, `||` and `!`: "
                "`context.address.startsWith('10.') || context.address in ['192.0.2.1']`"
            )
        case _:
            pass


def _conditions_of(expression: Expression) -> int:
    """How many conditions of `?:` the deepest part of an expression stands in."""
    match expression:
        case Call("_?_:_", (condition, *chosen)):
            return max(1 + _conditions_of(condition), *map(_conditions_of, chosen))
        case Call(_, arguments):
            return max(map(_conditions_of, arguments), default=0)
        case _:
            return 0


def _is_whole(value: Value) -> bool:
    return isinstance(value, str) or (isinstance(value, tuple) and all(value))


# The part of cel.expr.CheckedExpr that we read; field numbers from the CEL
# specification, proto/cel/expr/{checked,syntax}.proto. Held here so that no
# generated `cel` package need be importable.
_FIELDS: dict[str, list[tuple[str, int, str]]] = {
    "CheckedExpr": [("expr", 4, "Expr"), ("reference_map", 2, "*ReferenceEntry")],
    "ReferenceEntry": [("key", 1, "int64"), ("value", 2, "Reference")],
    "Reference": [("value", 4, "Constant")],
    "Constant": [
        ("null_value", 1, "int64"),
        ("bool_value", 2, "bool"),
        ("int64_value", 3, "int64"),
        ("uint64_value", 4, "uint64"),
        ("double_value", 5, "double"),
        ("string_value", 6, "string"),
        ("bytes_value", 7, "bytes"),
    ],
    "Expr": [
        ("id", 2, "int64"),
        ("const_expr", 3, "Constant"),
        ("ident_expr", 4, "Ident"),
        ("select_expr", 5, "Select"),
        ("call_expr", 6, "CallNode"),
        ("list_expr", 7, "ListNode"),
        ("struct_expr", 8, "Ident"),
        ("comprehension_expr", 9, "Comprehension"),
    ],
    "Ident": [("name", 1, "string")],
    "Select": [("operand", 1, "Expr"), ("field", 2, "string"), ("test_only", 3, "bool")],
    "CallNode": [("target", 1, "Expr"), ("function", 2, "string"), ("args", 3, "*Expr")],
    "ListNode": [("elements", 1, "*Expr")],
    "Comprehension": [("iter_var", 1, "string")],
}
_ONEOFS = {"Constant": "constant_kind", "Expr": "expr_kind"}


_Descriptor = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int64": _Descriptor.TYPE_INT64,
    "uint64": _Descriptor.TYPE_UINT64,
    "bool": _Descriptor.TYPE_BOOL,
    "double": _Descriptor.TYPE_DOUBLE,
    "string": _Descriptor.TYPE_STRING,
    "bytes": _Descriptor.TYPE_BYTES,
}


@cache
def _checked_type() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="cel.proto", package="cel", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        if name in _ONEOFS:
            message.oneof_decl.add(name=_ONEOFS[name])
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = _Descriptor.LABEL_REPEATED if kind.startswith("*") else _Descriptor.LABEL_OPTIONAL
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type, field.type_name = _Descriptor.TYPE_MESSAGE, f".cel.{kind.removeprefix('*')}"
            if name in _ONEOFS and field_name != "id":
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("cel.CheckedExpr"))
