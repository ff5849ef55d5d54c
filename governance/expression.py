"""Expressions of rules as a small closed tree.

CEL is parsed and type-checked by language.py; what comes out is this tree, and
everything else works on it: folding, deciding, and the compiler to Envoy. It
holds only what all three treat alike, so a rule means one thing everywhere.
Semantics: the CEL language definition, restricted to total operators. The one
operator that can fail is an index into tool.labels; `&&` and `||` absorb a
failure as CEL says (either side decides if it can).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Value = bool | int | str | tuple[str, ...] | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Const:
    """A value known when the rule is read, or once the tool is known."""

    value: bool | int | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A fact: `caller.domain` is Field("caller", "domain")."""

    root: str
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operator over its arguments, by CEL's function name: "_&&_", "@in"."""

    function: str
    arguments: tuple[Expression, ...]


Expression = Const | Field | Call

TRUE = Const(value=True)
FALSE = Const(value=False)


class EvaluationError(Exception):
    """An expression has no value: an index names a label the tool lacks."""


def fields_of(expression: Expression) -> Iterator[Field]:
    """Every fact that an expression reads, as often as it does."""
    match expression:
        case Field():
            yield expression
        case Call(_, arguments):
            for argument in arguments:
                yield from fields_of(argument)
        case _:
            pass


def all_of(*parts: Expression) -> Expression:
    """The conjunction, with constants folded away."""
    return _join("_&&_", parts, unit=True)


def any_of(*parts: Expression) -> Expression:
    """The disjunction, with constants folded away."""
    return _join("_||_", parts, unit=False)


def negation(part: Expression) -> Expression:
    """Its opposite."""
    if isinstance(part, Const):
        return Const(value=not part.value)
    return Call("!_", (part,))


def _join(function: str, parts: tuple[Expression, ...], *, unit: bool) -> Expression:
    kept = [part for part in parts if part != Const(unit)]
    if any(part == Const(not unit) for part in kept):
        return Const(not unit)
    if not kept:
        return Const(unit)
    return _balanced(function, kept)


def _balanced(function: str, parts: list[Expression]) -> Expression:
    # A chain would be as deep as there are rules, and Envoy reads no message
    # nested more than 100 deep.
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return Call(function, (_balanced(function, parts[:half]), _balanced(function, parts[half:])))


def evaluate(expression: Expression, facts: Mapping[tuple[str, str], Value]) -> Value:
    """The value of an expression. facts: (root, name) -> value, complete.

    Raises EvaluationError where CEL would.
    """
    match expression:
        case Const(value):
            return value
        case Field(root, name):
            return facts[root, name]
        case Call("_&&_", (left, right)):
            return _absorb(left, right, facts, decisive=False)
        case Call("_||_", (left, right)):
            return _absorb(left, right, facts, decisive=True)
        case Call("_?_:_", (condition, then, otherwise)):
            return evaluate(then if evaluate(condition, facts) else otherwise, facts)
        case Call(function, arguments):
            return _OPERATORS[function](*[evaluate(argument, facts) for argument in arguments])


def _absorb(left: Expression, right: Expression, facts: Mapping[tuple[str, str], Value], *, decisive: bool) -> bool:
    try:
        if bool(evaluate(left, facts)) is decisive:
            return decisive
    except EvaluationError:
        if bool(evaluate(right, facts)) is decisive:
            return decisive
        raise
    return bool(evaluate(right, facts))


def fold(expression: Expression, facts: Mapping[tuple[str, str], Value], *, otherwise: bool) -> Expression:
    """What is left of a condition once the facts are known; total, whoever calls.

    otherwise: its value where CEL has none. Where an operator other than `&&`,
    `||`, `!` and `?:` is over something that may have no value, it counts as
    having none.
    """
    match expression:
        case Call("_&&_" | "_||_" as function, (left, right)):
            join, decisive = (all_of, FALSE) if function == "_&&_" else (any_of, TRUE)
            folded = fold(left, facts, otherwise=otherwise)
            return folded if folded == decisive else join(folded, fold(right, facts, otherwise=otherwise))
        case Call("!_", (part,)):
            return negation(fold(part, facts, otherwise=not otherwise))
        case Call("_?_:_", (condition, then, other)):
            return _fold_choice(condition, then, other, facts, otherwise=otherwise)
        case _:
            try:
                return _fold_operand(expression, facts)
            except EvaluationError:
                return Const(otherwise)


def _fold_choice(
    condition: Expression,
    then: Expression,
    other: Expression,
    facts: Mapping[tuple[str, str], Value],
    *,
    otherwise: bool,
) -> Expression:
    # Neither holds where the condition has no value.
    holds, fails = fold(condition, facts, otherwise=False), negation(fold(condition, facts, otherwise=True))
    if holds == TRUE:
        return fold(then, facts, otherwise=otherwise)
    if fails == TRUE:
        return fold(other, facts, otherwise=otherwise)
    chosen = fold(then, facts, otherwise=otherwise), fold(other, facts, otherwise=otherwise)
    if fails == negation(holds):
        return Call("_?_:_", (holds, *chosen))
    neither = (all_of(negation(holds), negation(fails)),) if otherwise else ()
    return any_of(all_of(holds, chosen[0]), all_of(fails, chosen[1]), *neither)


def _fold_operand(expression: Expression, facts: Mapping[tuple[str, str], Value]) -> Expression:
    """The same for any expression. Raises EvaluationError if a part that the facts decide has no value."""
    match expression:
        case Call("_?_:_", (condition, then, other)):
            folded = _fold_operand(condition, facts)
            if isinstance(folded, Const):
                return _fold_operand(then if folded.value else other, facts)
            return Call("_?_:_", (folded, _fold_operand(then, facts), _fold_operand(other, facts)))
        case Call(function, arguments):
            operation = Call(function, tuple(_fold_argument(argument, facts) for argument in arguments))
            decided = all(_known(argument, facts) for argument in operation.arguments)
            return _constant(evaluate(operation, facts)) if decided else operation
        case Field(root, name) if (root, name) in facts:
            return _constant(facts[root, name])
        case _:
            return expression


def _known(expression: Expression, facts: Mapping[tuple[str, str], Value]) -> bool:
    return isinstance(expression, Const) or (
        isinstance(expression, Field) and (expression.root, expression.name) in facts
    )


def _fold_argument(expression: Expression, facts: Mapping[tuple[str, str], Value]) -> Expression:
    # A map has no constant form; the operator over it folds as a whole.
    if isinstance(expression, Field) and isinstance(facts.get((expression.root, expression.name)), Mapping):
        return expression
    return _fold_operand(expression, facts)


def _constant(value: Value) -> Const:
    if isinstance(value, Mapping):
        raise TypeError("a map is not a value of an expression")
    return Const(value)


def _index(labels: Value, key: Value) -> Value:
    if not isinstance(labels, Mapping) or not isinstance(key, str) or key not in labels:
        raise EvaluationError(f"the tool has no label `{key}`")
    return labels[key]


def _among(item: str, items: tuple[str, ...] | Mapping[str, str]) -> bool:
    return item in items


_OPERATORS: Mapping[str, Callable[..., Value]] = {
    "!_": operator.not_,
    "_==_": operator.eq,
    "_!=_": operator.ne,
    "_<_": operator.lt,
    "_<=_": operator.le,
    "_>_": operator.gt,
    "_>=_": operator.ge,
    "@in": _among,
    "size": len,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
    "_[_]": _index,
}

SUPPORTED = frozenset({"_&&_", "_||_", "_?_:_", *_OPERATORS})
