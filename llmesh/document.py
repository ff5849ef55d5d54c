"""Documents that people write: YAML text -> a strict model, with errors that say where.

An unknown key is an error with its line and the nearest right key.
"""

from __future__ import annotations

__all__ = ["Document", "DocumentError", "line_in", "parse_document"]

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any as Untyped
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Document(BaseModel):
    """A model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Document)

# How much of a wrong value is told.
SHOWN = 40
TOO_DEEP = "is nested too deep"
# Any text is right.
TEXT = "tag:yaml.org,2002:str"


class DocumentError(ValueError):
    """A document cannot be used. str() is "FILE:LINE: what is wrong and what was expected"."""

    def __init__(self, file: str, line: int, message: str) -> None:
        """Line counts from 1."""
        super().__init__(f"{file}:{line}: {message}")
        self.file = file
        self.line = line
        self.message = message


def parse_document(model: type[Model], text: str, *, file: str) -> Model:
    """The model that the text holds. Raises DocumentError for the first thing wrong."""
    root, data = _read(text, file)
    try:
        return model.model_validate(data if data is not None else {})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = tuple(first["loc"])
        raise DocumentError(file, _line_of(root, where), _wording(model, where, first["type"], first["msg"])) from error


def _read(text: str, file: str) -> tuple[yaml.Node | None, object]:
    """The text as nodes, which know their lines, and as values."""
    try:
        loader: Untyped = yaml.CSafeLoader(text)
        try:
            root = loader.get_single_node()
            _check_nodes(root, _Reading(file, loader.construct_object))
            return root, loader.construct_document(root) if root else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        # What ends too early ends after the last line.
        line = min(error.problem_mark.line, text.count("\n")) + 1 if error.problem_mark else 1
        raise DocumentError(file, line, _words(error)) from error
    except UnicodeEncodeError as error:
        message = "half of a character (a lone surrogate) cannot be written in UTF-8"
        raise DocumentError(file, text.count("\n", 0, error.start) + 1, message) from error
    except yaml.YAMLError as error:
        raise DocumentError(file, 1, f"not YAML: {error}") from error
    except RecursionError as error:
        raise DocumentError(file, 1, TOO_DEEP) from error


def _words(error: yaml.MarkedYAMLError) -> str:
    # libyaml reads nothing that is nested more than some 1,000 deep.
    return TOO_DEEP if "maximum nesting depth" in str(error.problem) else f"not YAML: {error.problem}"


@dataclass(frozen=True, slots=True)
class _Reading:
    """One text on the way. value_of: a node's. checked: nodes that were found right, which may come again."""

    file: str
    value_of: Callable[[yaml.Node], object]
    checked: set[int] = field(default_factory=set[int])


def _check_nodes(node: yaml.Node | None, reading: _Reading, *, around: frozenset[int] = frozenset()) -> None:
    """Refuse what makes no values, or loses some."""
    if node is None or id(node) in reading.checked:
        return
    if id(node) in around:
        raise DocumentError(reading.file, node.start_mark.line + 1, "contains itself")
    if isinstance(node, yaml.ScalarNode) and node.tag != TEXT:
        _check_scalar(node, reading)
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        inside = node.value
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated_keys(node, reading.file)
        inside = [each for pair in node.value for each in pair]
    for each in inside:
        _check_nodes(each, reading, around=around | {id(node)})
    reading.checked.add(id(node))


def _check_scalar(node: yaml.ScalarNode, reading: _Reading) -> None:
    try:
        reading.value_of(node)
    except (ValueError, TypeError, OverflowError, LookupError, AttributeError) as error:
        kind = node.tag.rpartition(":")[2]
        message = f"`{node.value[:SHOWN]}` is not a right {kind}; put text in quotes"
        raise DocumentError(reading.file, node.start_mark.line + 1, message) from error


def _refuse_repeated_keys(node: yaml.MappingNode, file: str) -> None:
    # YAML readers keep the last of two equal keys: a second `rules` would
    # silently drop every rule of the first.
    seen: set[str] = set()
    for key, _ in node.value:
        name = str(key.value)
        if name in seen:
            raise DocumentError(file, key.start_mark.line + 1, f"`{name}` is given twice; the first would be lost")
        seen.add(name)


def line_in(text: str, *path: int | str) -> int:
    """The line, from 1, where the value at a path stands in a text that parse_document has read."""
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    return _line_of(root, path)


def _line_of(root: yaml.Node | None, path: tuple[int | str, ...]) -> int:
    """The line, from 1, where the value at a path stands, or the nearest thing around it that exists."""
    node = root
    line = 1 if node is None else node.start_mark.line + 1
    for step in path:
        found = _child(node, step)
        if found is None:
            break
        key, node = found
        line = key.start_mark.line + 1
    return line


def _child(node: yaml.Node | None, step: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _wording(model: type[BaseModel], where: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(str(step) for step in where)
    if kind != "extra_forbidden":
        wording = message.removeprefix("Value error, ")
        return f"{f'`{name}`: ' if name else ''}{wording[:1].lower()}{wording[1:]}"
    near = difflib.get_close_matches(str(where[-1]), _keys(model, where[:-1]), n=1)
    hint = (
        f"; did you mean `{near[0]}`?" if near else f"; expected one of {', '.join(sorted(_keys(model, where[:-1])))}"
    )
    return f"`{name}` is not a key here{hint}"


def _keys(model: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    current: type[BaseModel] | None = model
    for step in where:
        if isinstance(step, int) or current is None:
            continue
        current = _model_in(current.model_fields[step].annotation) if step in current.model_fields else None
    return [field.alias or name for name, field in current.model_fields.items()] if current else []


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)
