"""What a prompt may say: text, fields, conditions and loops over fields. Checked before it is ever rendered.

Jinja can do much more. This is the part of it in which every name is one of
the message's fields, every loop ends with a field's entries, and every value is
of a kind that is known, so that what a prompt says can be checked whole, from
its syntax tree, and rendering it fails for no request but one that is too long
or holds what is not, and needs no more than the request does:

    output     value | output if condition else output
    condition  value | value < value | condition and condition | not condition
    value      'text' | 1.5 | field.field | value|filter | value|filter('text')
"""

from __future__ import annotations

__all__ = ["FILTERS", "PromptError", "Shape", "check", "shape_of", "shape_of_one"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from jinja2 import nodes

from llmesh._services import ServeError

# Messages that are read as the texts that JSON has for them.
TEXTUAL = ("google.protobuf.Timestamp", "google.protobuf.Duration")
# Of the fields that there are, so many are named.
NAMED = 32
# Jinja's own, whatever a message calls its fields.
TAKEN = ("loop", "self")
# Jinja's `truncate` cuts no shorter than its own dots.
SHORTEST = 3
# No field holds a number from here on, and not all of them can be written.
BEYOND = 1 << 64


class PromptError(ServeError):
    """A prompt cannot be used; the message names the file, the line and what to write instead."""


class Shape(Enum):
    """What kind of thing a value is. TEXT is also what reads as a text: an enum's name, bytes, a time."""

    TEXT = auto()
    NUMBER = auto()
    BOOL = auto()
    MESSAGE = auto()
    MANY = auto()
    MAP = auto()
    PAIRS = auto()
    LOOP = auto()


@dataclass(frozen=True, slots=True)
class _Value:
    """What an expression stands for. message: its type; entries: what a loop over it gives at each turn."""

    shape: Shape
    message: Descriptor | None = None
    entries: tuple[_Value, ...] = ()


_Names = Mapping[str, _Value]
_TEXT, _NUMBER, _BOOL = _Value(Shape.TEXT), _Value(Shape.NUMBER), _Value(Shape.BOOL)
_WRITTEN = (Shape.TEXT, Shape.NUMBER, Shape.BOOL)
_TESTED = (*_WRITTEN, Shape.MESSAGE, Shape.MANY, Shape.MAP)
_LOOP = {"first": _BOOL, "index": _NUMBER, "index0": _NUMBER, "last": _BOOL, "length": _NUMBER}
# What each filter takes, and gives.
_FILTERS = {
    "items": ((Shape.MAP,), Shape.PAIRS),
    "join": ((Shape.MANY,), Shape.TEXT),
    "length": ((Shape.TEXT, Shape.MANY, Shape.MAP), Shape.NUMBER),
    "lower": ((Shape.TEXT,), Shape.TEXT),
    "tojson": ((*_WRITTEN, Shape.MESSAGE, Shape.MANY), Shape.TEXT),
    "trim": ((Shape.TEXT,), Shape.TEXT),
    "truncate": ((Shape.TEXT,), Shape.TEXT),
    "upper": ((Shape.TEXT,), Shape.TEXT),
}
FILTERS = tuple(_FILTERS)


def shape_of(field: FieldDescriptor) -> Shape:
    """What kind of thing a field holds."""
    message: Descriptor | None = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return Shape.MAP
    return Shape.MANY if field.is_repeated else shape_of_one(field)


def shape_of_one(field: FieldDescriptor) -> Shape:
    """What kind of thing a field holds, or each of its entries."""
    message: Descriptor | None = field.message_type
    if message is not None:
        return Shape.TEXT if message.full_name in TEXTUAL else Shape.MESSAGE
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return Shape.BOOL
        case FieldDescriptor.CPPTYPE_STRING | FieldDescriptor.CPPTYPE_ENUM:
            return Shape.TEXT
        case _:
            return Shape.NUMBER


def check(tree: nodes.Template, message: Descriptor, *, file: str) -> frozenset[str]:
    """The message's fields that the prompt names. Raises PromptError for what no prompt may say, or no field is.

    RecursionError for what is nested too deep.
    """
    checking = _Check(message, file)
    checking.body(tree.body, checking.fields)
    return frozenset(checking.named)


def _read(field: FieldDescriptor) -> _Value:
    shape = shape_of(field)
    match shape:
        case Shape.MAP:
            # Whatever a map's keys are, they are read as texts.
            held = cast("Descriptor", field.message_type).fields_by_name["value"]
            return _Value(shape, entries=(_TEXT, _read_one(held)))
        case Shape.MANY:
            return _Value(shape, entries=(_read_one(field),))
        case _:
            return _read_one(field)


def _read_one(field: FieldDescriptor) -> _Value:
    return _Value(shape_of_one(field), field.message_type)


class _Check:
    """Walks one tree. names: what stands for something where a statement is."""

    def __init__(self, message: Descriptor, file: str) -> None:
        self._message = message
        self._file = file
        self.fields = {field.name: _read(field) for field in message.fields}
        # Fields of the message itself that are read.
        self.named: set[str] = set()

    def body(self, statements: Iterable[nodes.Node], names: _Names) -> None:
        """Statements, one after the other."""
        for each in statements:
            self._statement(each, names)

    def _statement(self, node: nodes.Node, names: _Names) -> None:
        match node:
            case nodes.Output():
                for each in node.nodes:
                    if not isinstance(each, nodes.TemplateData):
                        self._shown(each, names)
            case nodes.If():
                self._condition(node.test, names)
                for branch in (node.body, node.elif_, node.else_):
                    self.body(branch, names)
            case nodes.For():
                self._loop(node, names)
            case _:
                raise self._wrong(node, f"no prompt may say `{type(node).__name__.lower()}`: use if and for")

    def _loop(self, node: nodes.For, names: _Names) -> None:
        over = self._value(node.iter, names)
        if node.recursive or over.shape not in (Shape.MANY, Shape.PAIRS):
            what = f"`{_words(node.iter)}` is not repeated"
            raise self._wrong(node, f"{what}: loop over a repeated field, or over a map's `|items`")
        targets = node.target.items if isinstance(node.target, nodes.Tuple) else [node.target]
        given = [each.name for each in targets if isinstance(each, nodes.Name) and each.name not in TAKEN]
        if len(given) != len(over.entries) or len(targets) != len(over.entries):
            needed = "two names, key and value" if over.shape is Shape.PAIRS else "one name"
            raise self._wrong(node, f"a loop over `{_words(node.iter)}` gives {needed}")
        inner = {**names, **dict(zip(given, over.entries, strict=True))}
        if node.test is not None:
            self._condition(node.test, {name: value for name, value in inner.items() if name != "loop"})
        self.body(node.body, {**inner, "loop": _Value(Shape.LOOP)})
        self.body(node.else_, names)

    def _shown(self, node: nodes.Node, names: _Names) -> None:
        """An expression whose value is written out."""
        if isinstance(node, nodes.CondExpr):
            if node.expr2 is None:
                raise self._wrong(node, "say what is written otherwise: `a if b else c`")
            self._condition(node.test, names)
            self._shown(node.expr1, names)
            self._shown(node.expr2, names)
            return
        value = self._value(node, names)
        if value.shape not in _WRITTEN:
            advice = {
                Shape.MESSAGE: "is a message: name one of its fields, or write `|tojson`",
                Shape.MANY: "is repeated: loop over it, or write `|tojson`",
            }.get(value.shape, "is no text: loop over it")
            raise self._wrong(node, f"`{_words(node)}` {advice}")

    def _condition(self, node: nodes.Node, names: _Names) -> None:
        """An expression that is true or false: an unset message is false, as are 0 and what is empty."""
        match node:
            case nodes.And() | nodes.Or():
                self._condition(node.left, names)
                self._condition(node.right, names)
            case nodes.Not():
                self._condition(node.node, names)
            case nodes.Compare():
                left = node.expr
                for right in node.ops:
                    self._compared(left, right, names)
                    left = right.expr
            case _ if self._value(node, names).shape not in _TESTED:
                raise self._wrong(node, f"`{_words(node)}` is neither true nor false")
            case _:
                pass

    def _compared(self, left: nodes.Expr, right: nodes.Operand, names: _Names) -> None:
        one, other = self._value(left, names), self._value(right.expr, names)
        fits = one.shape is other.shape
        if right.op in ("in", "notin"):
            fits = (fits and one.shape is Shape.TEXT) or (
                other.shape is Shape.MANY and one.shape is other.entries[0].shape
            )
        if not fits or one.shape not in _WRITTEN:
            raise self._wrong(left, f"`{_words(left)}` cannot be compared so with `{_words(right.expr)}`")

    def _value(self, node: nodes.Node, names: _Names) -> _Value:
        match node:
            case nodes.Const():
                return self._literal(node)
            case nodes.Name():
                return self._name(node, names)
            case nodes.Getattr():
                return self._field(node, names)
            case nodes.Filter():
                return self._filtered(node, names)
            case nodes.Call():
                raise self._wrong(node, f"no prompt may call anything, as it does `{_words(node.node)}(...)`")
            case nodes.CondExpr():
                raise self._wrong(node, "`if` and `else` stand outside all else, as in `{{ a|tojson if b else c }}`")
            case nodes.And() | nodes.Or() | nodes.Not() | nodes.Compare():
                raise self._wrong(node, "conditions stand after an `if`, as in `{{ a if b else c }}`, and nowhere else")
            case _:
                raise self._wrong(node, f"no prompt may say `{type(node).__name__.lower()}`: name fields as `a.b`")

    def _literal(self, node: nodes.Const) -> _Value:
        match node.value:
            case None | bool():
                name = str(node.value).lower()
                raise self._wrong(node, f"`{name}` is no field: whether one is set, or true, an `if` asks")
            case str() as text if not any("\ud800" <= letter <= "\udfff" for letter in text):
                return _TEXT
            case int() | float() as number if number < BEYOND:
                return _NUMBER
            case _:
                raise self._wrong(node, "a text has whole characters, and a number is below 2**64")

    def _name(self, node: nodes.Name, names: _Names) -> _Value:
        value = names.get(node.name)
        if value is None or node.name.startswith("_"):
            raise self._no_field(node, node.name, self._message)
        if value is self.fields.get(node.name):
            if node.name in TAKEN:
                raise self._wrong(node, f"`{node.name}` is Jinja's own name, so no prompt can read that field")
            self.named.add(node.name)
        return value

    def _field(self, node: nodes.Getattr, names: _Names) -> _Value:
        value = self._value(node.node, names)
        path = _words(node)
        match value.shape:
            case Shape.LOOP if node.attr in _LOOP:
                return _LOOP[node.attr]
            case Shape.LOOP:
                raise self._wrong(node, f"`{path}` is none of {_listed(f'loop.{name}' for name in _LOOP)}")
            case Shape.MESSAGE if value.message is not None:
                field = value.message.fields_by_name.get(node.attr)
                if field is None or node.attr.startswith("_"):
                    raise self._no_field(node, path, value.message)
                return _read(field)
            case Shape.TEXT | Shape.NUMBER | Shape.BOOL:
                raise self._wrong(node, f"`{path}`: `{_words(node.node)}` has no fields")
            case _:
                raise self._wrong(node, f"`{path}`: `{_words(node.node)}` is repeated, so loop over it first")

    def _filtered(self, node: nodes.Filter, names: _Names) -> _Value:
        if node.name not in _FILTERS or node.node is None:
            raise self._wrong(node, f"`{node.name}` is none of the filters {_listed(FILTERS)}")
        if node.name in _filters_of(node.node):
            # Each makes a text longer, some by a factor.
            raise self._wrong(node, f"`{_words(node)}` says `{node.name}` twice")
        self._arguments(node)
        value = self._value(node.node, names)
        takes, gives = _FILTERS[node.name]
        is_joined = node.name == "join" and value.shape is Shape.MANY
        if value.shape not in takes or (is_joined and value.entries[0].shape not in _WRITTEN):
            raise self._wrong(node, f"`{node.name}` takes nothing like `{_words(node.node)}`")
        return replace(value, shape=gives) if gives is Shape.PAIRS else _Value(gives)

    def _arguments(self, node: nodes.Filter) -> None:
        """What a filter is given is written out, so that it is known to be right."""
        match (node.name, node.args, node.kwargs, node.dyn_args, node.dyn_kwargs):
            case (_, [], [], None, None):
                pass
            case ("join", [nodes.Const(value=str()) as text], [], None, None):
                self._literal(text)
            case ("truncate", [nodes.Const(value=int(length))], [], None, None) if length >= SHORTEST:
                pass
            case _:
                takes = {"join": "one text, written out", "truncate": f"one number from {SHORTEST}, written out"}
                raise self._wrong(node, f"`{node.name}` is given {takes.get(node.name, 'nothing')}")

    def _no_field(self, node: nodes.Node, path: str, message: Descriptor) -> PromptError:
        fields = [field.name for field in message.fields]
        rest = f" and {len(fields) - NAMED} more" if len(fields) > NAMED else ""
        there = f"which has {_listed(fields[:NAMED])}{rest}" if fields else "which has none"
        return self._wrong(node, f"`{path}` is no field of `{message.full_name}`, {there}")

    def _wrong(self, node: nodes.Node, words: str) -> PromptError:
        return PromptError(f"{self._file}:{node.lineno}: {words}")


def _filters_of(node: nodes.Node) -> Iterable[str]:
    """The filters that a value has gone through."""
    while isinstance(node, nodes.Filter) and node.node is not None:
        yield node.name
        node = node.node


def _words(node: nodes.Node | None) -> str:
    """A path or the like, as it is written; of anything else, no more than what it is."""
    match node:
        case nodes.Name():
            return node.name
        case nodes.Getattr():
            return f"{_words(node.node)}.{node.attr}"
        case nodes.Filter():
            return f"{_words(node.node)}|{node.name}"
        case nodes.Const():
            return f"{node.value!r:.40}"
        case _:
            return "it" if node is None else type(node).__name__.lower()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
