from __future__ import annotations

import pytest

from governance.expression import Call, Const, Field
from governance.language import MAX_CONDITIONS, LanguageError, compile_rule
from llmesh.api.options.v1 import options_pb2 as options


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        pytest.param("caller.domain.matches('a.*')", "use startsWith, endsWith, contains or ==", id="regex"),
        pytest.param("caller.roles.exists(role, role == 'a')", "use `in`", id="exists"),
        pytest.param("caller.roles.all(role, role != 'a')", "use `in`", id="all"),
        pytest.param("has(caller.domain)", "compare it, as in `tool.domain != ''`", id="has"),
        pytest.param("has(tool.labels.tier)", "`'tier' in tool.labels`", id="has of a label"),
        pytest.param("tool.labels.tier == 'a'", "`tool.labels['tier']`", id="label as a field"),
        pytest.param("tool.labels[caller.domain] == 'a'", "can be indexed", id="label named by the caller"),
        pytest.param("caller.roles[0] == 'a'", "to the right of `in`", id="list index"),
        pytest.param("caller.roles == ['a']", "to the right of `in`", id="list compared"),
        pytest.param("(true ? caller.roles : caller.clearances) == ['a']", "to the right of `in`", id="list chosen"),
        pytest.param("tool.labels == tool.labels", "can only be indexed", id="labels compared"),
        pytest.param("caller == caller", "name one of its fields, as in `caller.domain`", id="whole caller"),
        pytest.param("caller.domain in [caller.subject]", "a list can only hold text", id="list of fields"),
        pytest.param("[1] == [1]", "a list can only hold text", id="list of numbers"),
        pytest.param("tool.cost + 1 == 2", "use comparisons", id="arithmetic"),
        pytest.param("caller.domain + 'x' == 'ax'", "use comparisons", id="joined text"),
        pytest.param("string(1) == '1'", "use comparisons", id="conversion"),
        pytest.param("dyn(caller.domain) == 1", "use comparisons", id="untyped"),
        pytest.param("type(caller.domain) == string", "use comparisons", id="type"),
        pytest.param("1.5 < 2.5", "no fact to be compared with", id="double"),
        pytest.param("1u < 2u", "no fact to be compared with", id="unsigned"),
        pytest.param("b'a' == b'a'", "no fact to be compared with", id="bytes"),
        pytest.param("null == null", "no fact to be compared with", id="null"),
        pytest.param("{'a': 'b'}['a'] == 'b'", "compare a field instead", id="map"),
        pytest.param("caller.domain", "must be true or false", id="text"),
        pytest.param("size(caller.roles)", "must be true or false", id="number"),
        pytest.param("context.address == ''", "text that is not empty", id="no address"),
        pytest.param("context.address in []", "text that is not empty", id="one of no addresses"),
        pytest.param("context.address == caller.subject", "text that is not empty", id="address of a field"),
        pytest.param("'10.0.0.5' == context.address", "on the left", id="address on the right"),
        pytest.param("context.address in caller.roles", "text that is not empty", id="address in a field"),
        pytest.param("size(context.address) > 3", "on the left of ==", id="size of an address"),
        pytest.param("context.address < '1'", "on the left of ==", id="order of addresses"),
        pytest.param("(context.address == 'a') == caller.domain.contains('b')", "joined by", id="tests compared"),
        pytest.param("caller.domain == 'a' ? context.address == 'a' : true", "joined by", id="address chosen"),
    ],
)
def test_what_cannot_be_carried_is_refused_with_what_to_write_instead(text: str, instead: str) -> None:
    with pytest.raises(LanguageError) as refused:
        compile_rule(text)

    assert instead in str(refused.value)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        pytest.param("caller.nope == 'a'", 7, id="unknown field"),
        pytest.param("callar.domain == 'a'", 7, id="unknown fact"),
        pytest.param("caller.domain == 1", 15, id="types differ"),
        pytest.param("caller.domain == 'a' && ", 25, id="cut short"),
    ],
)
def test_a_wrong_expression_is_shown_with_a_caret(text: str, column: int) -> None:
    with pytest.raises(LanguageError) as refused:
        compile_rule(text)

    told, shown, caret = str(refused.value).splitlines()[:3]
    assert told.startswith(f"column 1:{column}: ")
    assert shown == f" | {text}"
    assert caret.index("^") == len(" | ") + column - 1


def test_a_rule_nested_without_end_is_refused() -> None:
    with pytest.raises(LanguageError, match="recursion limit"):
        compile_rule("(" * 500 + "true" + ")" * 500)


def chosen_by(conditions: int, *, within: str = "({} ? caller.domain == 'b' : caller.domain == 'c')") -> str:
    text = "caller.domain == 'a'"
    for _ in range(conditions):
        text = within.format(text)
    return text


def test_a_rule_that_would_grow_without_bound_is_refused() -> None:
    assert compile_rule(chosen_by(MAX_CONDITIONS))

    for text in (chosen_by(MAX_CONDITIONS + 1), f"!(tool.hidden && {chosen_by(MAX_CONDITIONS + 1)})"):
        with pytest.raises(LanguageError, match="within each other more than 4 deep; use `&&`"):
            compile_rule(text)


def test_alternatives_may_stand_within_each_other() -> None:
    assert compile_rule(chosen_by(12, within="(caller.domain == 'b' ? tool.hidden : {})"))


def test_effects_have_names() -> None:
    compared = compile_rule("tool.effect == Effect.EFFECT_READ")

    assert compared == Call("_==_", (Field("tool", "effect"), Const(options.EFFECT_READ)))


@pytest.mark.parametrize(
    "text",
    ["'\ud800' == caller.domain", "(" * 5000, "tool.hidden == (" * 120 + "tool.hidden" + ")" * 120],
    ids=["half a character", "open without end", "nested too deep"],
)
def test_no_text_breaks_the_reader(text: str) -> None:
    with pytest.raises(LanguageError):
        compile_rule(text)
