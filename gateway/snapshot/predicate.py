"""An expression over the derived caller and the context as a predicate of Envoy's matchers.

What rules usually ask, e.g. whether a role is among the caller's, Envoy
compares by itself, with the headers that caller.lua has derived. The rest of an
expression is CEL, which costs some ten times as much; it reads the caller with
its types, which caller.lua writes for the routes that ask for it.

INVARIANT: a part that has no value, because there is no caller, may hold or
not: whoever permits also demands a subject, which does not hold then. Where a
part is CEL, the whole holds for no call whose typed caller is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any as Untyped

from gateway.xds.messages import make, pack
from governance.expression import Call, Const, Expression, Field
from governance.issuers import GRANT

# Where caller.lua writes the caller with its types.
CALLER = "llmesh.caller"
# What a header of the derived caller's is called, but for the field's own name.
_HEADERS = "x-llmesh-"
_CEL_INPUT = "envoy.matching.inputs.cel_data_input"

# CEL's functions by the name of Envoy's way to compare texts.
_TEXTS = {"_==_": "exact", "startsWith": "prefix", "endsWith": "suffix", "contains": "contains"}
_METHODS = ("startsWith", "endsWith", "contains")
# Holds for every text but the empty one.
_SOME_TEXT: dict[str, Untyped] = {"safe_regex": {"google_re2": {}, "regex": "(?s).+"}}

# Tests that are held as they were made; most rules ask the same of many tools.
KEPT_TESTS = 16_384

Predicate = dict[str, Untyped]


def predicate(expression: Expression) -> Predicate:
    """The fields of an xds.type.matcher.v3.Matcher.MatcherList.Predicate."""
    found = _whole(expression)
    return {"and_matcher": {"predicate": [_typed_caller(), found]}} if _asks_cel(found) else found


@lru_cache(maxsize=KEPT_TESTS)
def is_typed(expression: Expression) -> bool:
    """Whether its predicate reads the caller with its types: its route must ask for them."""
    return _asks_cel(_whole(expression))


def _asks_cel(found: Predicate) -> bool:
    match found:
        case {"not_matcher": part}:
            return _asks_cel(part)
        case {"single_predicate": {"input": {"name": name}}}:
            return name == _CEL_INPUT
        case _:
            return any(_asks_cel(part) for joined in found.values() for part in joined["predicate"])


def _whole(expression: Expression) -> Predicate:
    match expression:
        case Call("_&&_" | "_||_" as function, _):
            parts = [_whole(part) for part in _parts(function, expression)]
            return {"and_matcher" if function == "_&&_" else "or_matcher": {"predicate": parts}}
        case Call("!_", (part,)):
            return {"not_matcher": _whole(part)}
        case Call("_!=_", (Field() as field, Const(str() as value))) if value:
            return {"not_matcher": _whole(Call("_==_", (field, Const(value))))}
        case _:
            return _comparison(expression)


@lru_cache(maxsize=KEPT_TESTS)
def _comparison(expression: Expression) -> Predicate:
    """A test that is not made of others."""
    match expression:
        case Call(function, (Field("context", "address"), Const(str() as value))):
            return _address({_TEXTS[function]: value})
        case Call("@in", (Field("context", "address"), Const(tuple() as values))):
            each = [_address({"exact": value}) for value in values]
            return {"or_matcher": {"predicate": each}} if len(each) > 1 else each[0]
        case Call(function, (Field("caller", name), Const(str() as value))):
            found = _text_matcher(function, value)
            return _holds(expression) if found is None else _header(name, found)
        # Lists travel joined by commas, which no part of one holds.
        case Call("@in", (Const(str() as value), Field("caller", name))) if GRANT.fullmatch(value):
            return _header(name, {"safe_regex": {"google_re2": {}, "regex": f"(.*,)?{re.escape(value)}(,.*)?"}})
        case _:
            return _holds(expression)


def _text_matcher(function: str, value: str) -> dict[str, Untyped] | None:
    """How Envoy compares a text with a value; None where it can't."""
    if not value:
        return {"_==_": {"exact": ""}, "_!=_": _SOME_TEXT}.get(function)
    return {_TEXTS[function]: value} if function in _TEXTS else None


def _parts(function: str, expression: Expression) -> Iterator[Expression]:
    """What is joined: the tree is balanced, and Envoy reads lists."""
    match expression:
        case Call(name, (left, right)) if name == function:
            yield from _parts(function, left)
            yield from _parts(function, right)
        case _:
            yield expression


def _header(name: str, value: dict[str, Untyped]) -> Predicate:
    """Whether a field of the caller is as an xds.type.matcher.v3.StringMatcher says; never where it is missing."""
    place = make("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=f"{_HEADERS}{name}")
    return {
        "single_predicate": {"input": {"name": f"caller.{name}", "typed_config": pack(place)}, "value_match": value}
    }


@cache
def _typed_caller() -> Predicate:
    """Whether there is one."""
    place = make(
        "envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
        filter=CALLER,
        path=[{"key": "v"}, {"key": "subject"}],
    )
    matcher = make("envoy.extensions.matching.input_matchers.metadata.v3.Metadata", value={"present_match": True})
    return _single(
        ("envoy.matching.inputs.dynamic_metadata", place), ("envoy.matching.matchers.metadata_matcher", matcher)
    )


def _address(value: dict[str, str]) -> Predicate:
    """Whether the address that a call comes from is as an xds.type.matcher.v3.StringMatcher says."""
    place = make("envoy.extensions.matching.common_inputs.network.v3.SourceIPInput")
    return {
        "single_predicate": {
            "input": {"name": "envoy.matching.inputs.source_ip", "typed_config": pack(place)},
            "value_match": value,
        }
    }


def _holds(expression: Expression) -> Predicate:
    """Whether CEL says so."""
    tree = make("cel.expr.ParsedExpr", expr=syntax_tree(expression))
    matcher = make("xds.type.matcher.v3.CelMatcher", expr_match={"cel_expr_parsed": tree})
    facts = make("xds.type.matcher.v3.HttpAttributesCelMatchInput")
    return _single((_CEL_INPUT, facts), ("envoy.matching.matchers.cel_matcher", matcher))


def _single(place: tuple[str, Untyped], matcher: tuple[str, Untyped]) -> Predicate:
    return {
        "single_predicate": {
            "input": {"name": place[0], "typed_config": pack(place[1])},
            "custom_match": {"name": matcher[0], "typed_config": pack(matcher[1])},
        }
    }


def syntax_tree(expression: Expression) -> dict[str, Untyped]:
    """The expression as fields of a cel.expr.Expr, its caller read from Envoy's metadata."""
    match expression:
        case Const(value):
            return _constant(value)
        case Field("caller", name):
            return _select(_derived_caller(), name)
        case Call(function, arguments) if function in _METHODS:
            target, *rest = (syntax_tree(argument) for argument in arguments)
            return {"call_expr": {"target": target, "function": function, "args": rest}}
        case Call(function, arguments):
            return {"call_expr": {"function": function, "args": [syntax_tree(argument) for argument in arguments]}}
        case _:
            raise TypeError(f"CEL is only told of the caller, not of {expression}")


def _constant(value: bool | int | str | tuple[str, ...]) -> dict[str, Untyped]:  # noqa: FBT001 - a value, not a switch
    match value:
        case bool():
            return {"const_expr": {"bool_value": value}}
        case int():
            return {"const_expr": {"int64_value": value}}
        case str():
            return {"const_expr": {"string_value": value}}
        case tuple():
            return {"list_expr": {"elements": [_constant(item) for item in value]}}


def _derived_caller() -> dict[str, Untyped]:
    # That is, the value under metadata.filter_metadata['llmesh.caller'].v.
    metadata = _select({"ident_expr": {"name": "metadata"}}, "filter_metadata")
    return _select({"call_expr": {"function": "_[_]", "args": [metadata, _constant(CALLER)]}}, "v")


def _select(operand: dict[str, Untyped], field: str) -> dict[str, Untyped]:
    return {"select_expr": {"operand": operand, "field": field}}
