from __future__ import annotations

import pytest
from hypothesis import given, settings

from governance.expression import evaluate
from governance.language import compile_rule
from governance.words import Caller
from governance.written import written
from tests.governance.expressions import about_callers, callers


@given(about_callers, callers)
@settings(max_examples=200, deadline=None)
def test_what_is_written_says_the_same(text: str, caller: Caller) -> None:
    facts = {("caller", name): getattr(caller, name) for name in Caller.__slots__}
    expression = compile_rule(text)

    assert evaluate(compile_rule(written(expression)), facts) == evaluate(expression, facts)


@pytest.mark.parametrize(
    "text",
    [
        "caller.domain == 'support' && ('editor' in caller.roles || 'owner' in caller.roles)",
        "!('pii' in caller.clearances) || caller.domain in ['a', 'b']",
        "caller.subject.startsWith('robot-') ? (size(caller.roles) > 1) : (tool.labels['tier'] == \"it's\")",
        "context.address == '10.0.0.5'",
        "(caller.domain == 'a' || caller.domain == 'b') && tool.hidden",
        "!tool.hidden",
    ],
)
def test_a_condition_is_written_as_people_would(text: str) -> None:
    assert written(compile_rule(text)) == text
