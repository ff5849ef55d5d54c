"""That the labelled questions ask what they are meant to, of what there is."""

from __future__ import annotations

from gateway.search.words import tokens
from tests.search.asked import questions
from tests.search.made_up import contracts

REFERENCE = {
    *("acme.engineering.v1.DocSearch", "acme.engineering.v1.PackageSearch", "acme.handbook.v1.HandbookSearch"),
    *("acme.support.v1.Answers", "acme.support.v1.Tickets", "acme.writing.v1.Text"),
}


def test_what_answers_a_question_is_there() -> None:
    tools = contracts().keys()
    assert len(tools) == 2000
    assert {name for each in questions("tools") for name in each.want} <= tools | REFERENCE


def test_half_of_the_questions_share_no_word_with_the_name_of_what_answers_them() -> None:
    asked = questions("tools")
    apart = [each for each in asked if set(tokens(each.ask)).isdisjoint(tokens(" ".join(each.want)))]
    assert len(asked) == 150
    assert len(apart) >= 75


def test_no_question_is_asked_twice() -> None:
    for name, count in (("tools", 150), ("docs", 100)):
        assert len({each.ask for each in questions(name)}) == count
