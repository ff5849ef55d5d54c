"""What a prompt may say: text, fields, conditions and loops over fields. Checked before it is ever rendered.

Jinja can do much more. This is the part of it in which every name is one of
the message's fields and every loop ends with a field's entries, so that what
a prompt says can be checked whole, from its syntax tree, and rendering it
needs no more than the request does.
"""

from __future__ import annotations

__all__ = ["FILTERS", "PromptError", "Shape", "check", "shape_of"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from jinja2 import nodes

from llmesh._services import ServeError

FILTERS = ("items", "join", "length", "lower", "tojson", "trim", "truncate", "upper")
# Messages that are read as the texts that JSON has for them.
TEXTUAL = ("google.protobuf.Timestamp", "google.protobuf.Duration")
LOOP = ("first", "index", "index0", "last", "length")
# Of the fields that there are, so many are named.
NAMED = 32


class PromptError(ServeError):
    """A prompt cannot be used; the message names the file, the line and what to write instead."""


class Shape(Enum):
    """What kind of thing a field holds."""

    ONE = auto()
    MESSAGE = auto()
    MANY = auto()
    MAP = auto()
    PAIRS = auto()
    LOOP = auto()


@dataclass(frozen=True, slots=True)
class _Value:
    """What an expression stands for. field: that it is read from; message: its own, or its entries'."""

    shape: Shape
    field: FieldDescriptor | None = None
    message: Descriptor | None = None

    @property
    def entry(self) -> _Value:
        """One of many."""
        return _Value(Shape.MESSAGE if self.message else Shape.ONE, message=self.message)


_ONE = _Value(Shape.ONE)
_Names = Mapping[str, _Value]


def shape_of(field: FieldDescriptor) -> Shape:
    """What kind of thing a field holds."""
    message: Descriptor | None = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return Shape.MAP
    if field.is_repeated:
        return Shape.MANY
    return Shape.MESSAGE if message is not None and message.full_name not in TEXTUAL else Shape.ONE


def check(tree: nodes.Template, message: Descriptor, *, file: str) -> frozenset[str]:
    """The message's fields that the prompt names. Raises PromptError for what no prompt may say, or no field is."""
    checking = _Check(message, file)
    checking.body(tree.body, {field.name: _read(field) for field in message.fields})
    return frozenset(checking.named)


def _read(field: FieldDescriptor) -> _Value:
    shape = shape_of(field)
    message: Descriptor | None = field.message_type
    if message is not None and message.full_name in TEXTUAL:
        message = None
    return _Value(shape, field, message)


class _Check:
    """Walks one tree. names: what stands for something where a statement is."""

    def __init__(self, message: Descriptor, file: str) -> None:
        self._message = message
        self._file = file
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
                self._value(node.test, names)
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
        entries = [over.entry] if over.shape is Shape.MANY else [_ONE, over.entry]
        targets = node.target.items if isinstance(node.target, nodes.Tuple) else [node.target]
        given = [each.name for each in targets if isinstance(each, nodes.Name)]
        if len(given) != len(entries) or len(targets) != len(entries) or "loop" in given:
            needed = "two names, key and value" if len(entries) > 1 else "one name"
            raise self._wrong(node, f"a loop over `{_words(node.iter)}` gives {needed}")
        inner = {**names, **dict(zip(given, entries, strict=True)), "loop": _Value(Shape.LOOP)}
        if node.test is not None:
            self._value(node.test, {**inner})
        self.body(node.body, inner)
        self.body(node.else_, names)

    def _shown(self, node: nodes.Node, names: _Names) -> None:
        """An expression whose value is written out."""
        value = self._value(node, names)
        if value.shape is not Shape.ONE:
            advice = {
                Shape.MESSAGE: "is a message: name one of its fields, or write `|tojson`",
                Shape.MANY: "is repeated: loop over it, or write `|tojson`",
            }.get(value.shape, "is no text: loop over it")
            raise self._wrong(node, f"`{_words(node)}` {advice}")

    def _value(self, node: nodes.Node, names: _Names) -> _Value:
        match node:
            case nodes.Const():
                return _ONE
            case nodes.Name():
                return self._name(node, names)
            case nodes.Getattr():
                return self._field(node, names)
            case nodes.Filter():
                return self._filtered(node, names)
            case nodes.CondExpr(expr2=nodes.Expr() as other):
                self._value(node.test, names)
                self._shown(node.expr1, names)
                self._shown(other, names)
            case _:
                for each in self._parts(node):
                    self._value(each, names)
        return _ONE

    def _parts(self, node: nodes.Node) -> list[nodes.Expr]:
        """What a condition is made of."""
        match node:
            case nodes.Compare():
                return [node.expr, *(each.expr for each in node.ops)]
            case nodes.And() | nodes.Or():
                return [node.left, node.right]
            case nodes.Not():
                return [node.node]
            case nodes.Call():
                raise self._wrong(node, f"no prompt may call anything, as it does `{_words(node.node)}(...)`")
            case _:
                raise self._wrong(node, f"no prompt may say `{type(node).__name__.lower()}`: name fields as `a.b`")

    def _name(self, node: nodes.Name, names: _Names) -> _Value:
        if node.name not in names or node.name.startswith("_"):
            raise self._no_field(node, node.name, self._message)
        found = names[node.name]
        if found.field is not None and found.field.containing_type is self._message:
            self.named.add(node.name)
        return found

    def _field(self, node: nodes.Getattr, names: _Names) -> _Value:
        value = self._value(node.node, names)
        path = _words(node)
        match value.shape:
            case Shape.LOOP if node.attr in LOOP:
                return _ONE
            case Shape.LOOP:
                raise self._wrong(node, f"`{path}` is none of {_listed(f'loop.{name}' for name in LOOP)}")
            case Shape.MESSAGE if value.message is not None:
                field = value.message.fields_by_name.get(node.attr)
                if field is None or node.attr.startswith("_"):
                    raise self._no_field(node, path, value.message)
                return _read(field)
            case Shape.ONE:
                raise self._wrong(node, f"`{path}`: `{_words(node.node)}` has no fields")
            case _:
                raise self._wrong(node, f"`{path}`: `{_words(node.node)}` is repeated, so loop over it first")

    def _filtered(self, node: nodes.Filter, names: _Names) -> _Value:
        if node.name not in FILTERS or node.node is None:
            raise self._wrong(node, f"`{node.name}` is none of the filters {_listed(FILTERS)}")
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise self._wrong(node, f"write out what `{node.name}` is given")
        for each in (*node.args, *(pair.value for pair in node.kwargs)):
            self._shown(each, names)
        value = self._value(node.node, names)
        takes = {
            "items": (Shape.MAP,),
            "join": (Shape.MANY,),
            "length": (Shape.ONE, Shape.MANY, Shape.MAP),
            "tojson": (Shape.ONE, Shape.MESSAGE, Shape.MANY),
        }.get(node.name, (Shape.ONE,))
        if value.shape not in takes or (node.name == "join" and value.message is not None):
            raise self._wrong(node, f"`{node.name}` takes nothing like `{_words(node.node)}`")
        if node.name == "items" and value.message is not None:
            return _pairs(value.message)
        return _ONE

    def _no_field(self, node: nodes.Node, path: str, message: Descriptor) -> PromptError:
        fields = [field.name for field in message.fields]
        rest = f" and {len(fields) - NAMED} more" if len(fields) > NAMED else ""
        there = f"which has {_listed(fields[:NAMED])}{rest}" if fields else "which has none"
        return self._wrong(node, f"`{path}` is no field of `{message.full_name}`, {there}")

    def _wrong(self, node: nodes.Node, words: str) -> PromptError:
        return PromptError(f"{self._file}:{node.lineno}: {words}")


def _pairs(entry: Descriptor) -> _Value:
    """Keys and values of a map, by the message of its entries."""
    value = _read(entry.fields_by_name["value"])
    return _Value(Shape.PAIRS, message=value.message)


def _words(node: nodes.Node | None) -> str:
    """A path as it is written; of anything else, no more than what it is."""
    match node:
        case nodes.Name():
            return node.name
        case nodes.Getattr():
            return f"{_words(node.node)}.{node.attr}"
        case nodes.Filter():
            return f"{_words(node.node)}|{node.name}"
        case _:
            return "it" if node is None else type(node).__name__.lower()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
