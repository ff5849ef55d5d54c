from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs] - its stubs are inside it
from hypothesis import given, settings
from hypothesis import strategies as st

from governance import decide, language, residue
from governance.expression import (
    FALSE,
    TRUE,
    Call,
    Const,
    EvaluationError,
    Expression,
    Field,
    Value,
    all_of,
    any_of,
    evaluate,
    fold,
    negation,
)
from governance.language import compile_rule
from governance.words import Caller, Tool
from llmesh.api.policy.v1 import facts_pb2
from tests.governance.expressions import about_both, about_callers, about_tools, callers, tools

UNKNOWN = Field("caller", "domain")
EDITOR: Expression = Call("@in", (Const("editor"), Field("caller", "roles")))


def facts_of(caller: Caller, tool: Tool) -> Mapping[tuple[str, str], Value]:
    return {**decide._facts(caller), **residue.facts_of(tool)}  # pyright: ignore[reportPrivateUsage]


def value_of(expression: Expression, facts: Mapping[tuple[str, str], Value]) -> Value | None:
    try:
        return evaluate(expression, facts)
    except EvaluationError:
        return None


def cel_says(text: str, caller: Caller, tool: Tool) -> bool | None:
    """The value by the CEL library itself; None for an error."""
    environment = language._environment()  # pyright: ignore[reportPrivateUsage]
    known = facts_pb2.Tool(
        service=tool.service,
        method=tool.method,
        domain=tool.domain,
        data_classes=tool.data_classes,
        unclassified=tool.unclassified,
        hidden=tool.hidden,
        needs_approval=tool.needs_approval,
        labels=tool.labels,
    )
    for name in ("effect", "stage", "cost"):
        setattr(known, name, getattr(tool, name))
    who = facts_pb2.Caller(
        issuer=caller.issuer,
        subject=caller.subject,
        roles=caller.roles,
        domain=caller.domain,
        clearances=caller.clearances,
        actor=caller.actor,
    )
    activation = environment.Activation({"caller": who, "tool": known})
    result = environment.compile(text).eval(activation)
    return bool(result.value()) if result.type() == cel.Type.BOOL else None


@given(about_both, callers, tools)
@settings(max_examples=400, deadline=None)
def test_a_rule_has_the_value_that_cel_gives_it(text: str, caller: Caller, tool: Tool) -> None:
    assert value_of(compile_rule(text), facts_of(caller, tool)) == cel_says(text, caller, tool)


@given(about_both, callers, tools, st.booleans())
@settings(max_examples=600, deadline=None)
def test_folding_the_tool_in_changes_no_value(text: str, caller: Caller, tool: Tool, otherwise: bool) -> None:  # noqa: FBT001
    rule = compile_rule(text)
    left = fold(rule, residue.facts_of(tool), otherwise=otherwise)  # pyright: ignore[reportPrivateUsage]
    expected = value_of(rule, facts_of(caller, tool))

    assert evaluate(left, decide._facts(caller)) == (otherwise if expected is None else expected)  # pyright: ignore[reportPrivateUsage]


@given(about_tools, tools)
@settings(max_examples=200, deadline=None)
def test_a_rule_about_the_tool_alone_folds_to_its_value(text: str, tool: Tool) -> None:
    rule, facts = compile_rule(text), residue.facts_of(tool)  # pyright: ignore[reportPrivateUsage]
    expected = value_of(rule, facts)
    for otherwise in (False, True):
        assert fold(rule, facts, otherwise=otherwise) == Const(otherwise if expected is None else bool(expected))


@given(about_callers, callers, tools)
@settings(max_examples=100, deadline=None)
def test_a_rule_about_the_caller_alone_never_fails(text: str, caller: Caller, tool: Tool) -> None:
    assert value_of(compile_rule(text), facts_of(caller, tool)) is not None


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(all_of(), TRUE, id="all of nothing"),
        pytest.param(any_of(), FALSE, id="any of nothing"),
        pytest.param(all_of(EDITOR), EDITOR, id="all of one"),
        pytest.param(any_of(EDITOR), EDITOR, id="any of one"),
        pytest.param(all_of(TRUE, EDITOR, TRUE), EDITOR, id="true adds nothing to all"),
        pytest.param(any_of(FALSE, EDITOR, FALSE), EDITOR, id="false adds nothing to any"),
        pytest.param(all_of(EDITOR, FALSE), FALSE, id="false decides all"),
        pytest.param(any_of(EDITOR, TRUE), TRUE, id="true decides any"),
        pytest.param(negation(TRUE), FALSE, id="not true"),
        pytest.param(negation(FALSE), TRUE, id="not false"),
        pytest.param(negation(EDITOR), Call("!_", (EDITOR,)), id="not unknown"),
    ],
)
def test_constants_are_folded_away(made: Expression, expected: Expression) -> None:
    assert made == expected


def depth_of(expression: Expression) -> int:
    return 1 + max(map(depth_of, expression.arguments), default=0) if isinstance(expression, Call) else 0


@pytest.mark.parametrize("join", [all_of, any_of])
def test_a_thousand_rules_make_no_deep_expression(join: Callable[..., Expression]) -> None:
    parts = [Call("_==_", (UNKNOWN, Const(str(number)))) for number in range(1000)]

    assert depth_of(join(*parts)) <= 12


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        pytest.param("tool.labels['a'] == 'x' && false", {}, False, id="false beside a failure on the left"),
        pytest.param("false && tool.labels['a'] == 'x'", {}, False, id="false beside a failure on the right"),
        pytest.param("tool.labels['a'] == 'x' || true", {}, True, id="true beside a failure"),
        pytest.param("tool.labels['a'] == 'x' || false", {}, None, id="a failure that decides"),
        pytest.param("!(tool.labels['a'] == 'x')", {}, None, id="the opposite of a failure"),
        pytest.param("tool.labels['a'] == 'x'", {"a": "x"}, True, id="a label that is there"),
        pytest.param("'a' in tool.labels && tool.labels['a'] == 'x'", {}, False, id="guarded"),
    ],
)
def test_a_missing_label_fails_unless_the_other_side_decides(
    text: str, labels: dict[str, str], expected: object
) -> None:
    tool = Tool("acme.a.v1.T", "Get", "a", labels=labels)

    assert value_of(compile_rule(text), facts_of(Caller(), tool)) is expected


def test_an_operator_over_what_may_have_no_value_has_none_itself() -> None:
    tool = Tool("acme.a.v1.T", "Get", "a")
    rule = compile_rule("(caller.domain == 'a' || tool.labels['a'] == 'x') == true")

    for otherwise in (False, True):
        assert fold(rule, residue.facts_of(tool), otherwise=otherwise) == Const(otherwise)  # pyright: ignore[reportPrivateUsage]
