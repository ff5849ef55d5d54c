"""What judging keeps in mind of calls: bounded, and no more of a call than the rules ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.records import judgement
from gateway.records.judgement import Judge
from gateway.records.logged import Logged, Outcome, read_line
from governance import words
from governance.bundle import parse_bundle
from governance.residue import Residue
from tests.envoy import READS, method_of, tool_of
from tests.gateway.records.lines import SERVICE, line

FROM_HOME = """
version: 1
rules:
- {id: reads, effect: permit, reason: at home, applies: {effects: [read]}, when: 'context.address == "10.0.0.1"'}
"""
FROM_HOME_SHADOW = """
version: 1
rules:
- {id: reads, effect: permit, reason: everyone reads, applies: {effects: [read]}}
- {id: home, effect: forbid, mode: shadow, reason: from there, when: 'context.address == "10.0.0.1"'}
"""


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses for which the rules were asked."""
    asked, decide = list[str](), judgement.decide

    def counted(residue: Residue, caller: words.Caller, context: words.Context) -> words.Decision:
        asked.append(context.address)
        return decide(residue, caller, context)

    monkeypatch.setattr(judgement, "decide", counted)
    return asked


def judge_of(rules: str) -> Judge:
    tool = tool_of(SERVICE, "unix:/run/a.sock", method_of("Get"), method_of("List"))
    judge = Judge({SERVICE: tool}.get)
    judge.in_force(0, parse_bundle(rules, {}))
    return judge


def calls(*addresses: str, method: str = "Get") -> Sequence[Logged]:
    return [read_line(line(address=address, path=f"/{SERVICE}/{method}")) for address in addresses]


def test_where_no_rule_asks_for_the_address_a_caller_is_judged_once(decided: list[str]) -> None:
    judge = judge_of(READS)
    rules = [judge.judge(call).rule for call in calls("10.0.0.1", "10.0.0.2", "10.0.0.1")]
    assert rules == ["mesh/reads"] * 3
    assert decided == [""]


def test_where_a_rule_asks_for_the_address_each_is_judged(decided: list[str]) -> None:
    judge = judge_of(FROM_HOME)
    home, away = calls("10.0.0.1", "10.0.0.2")
    rules = [
        judge.judge(call).rule for call in (home, away._replace(case=replace(away.case, outcome=Outcome.DENIED)), home)
    ]
    assert rules == ["mesh/reads", "", "mesh/reads"]
    assert decided == ["10.0.0.1", "10.0.0.2"]
    assert judge.disputed == 0


def test_a_rule_in_shadow_that_asks_for_the_address_is_told_of_each() -> None:
    judge = judge_of(FROM_HOME_SHADOW)
    shadows = [judge.judge(call).shadow for call in calls("10.0.0.1", "10.0.0.2")]
    assert shadows == [(("mesh/home", "deny"),), ()]


def test_decisions_of_all_methods_together_are_bounded(decided: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "MAX_DECISIONS", 2)
    monkeypatch.setattr(judgement, "CASES", 1)
    judge, get, other = judge_of(READS), calls("10.0.0.1")[0], calls("10.0.0.1", method="List")[0]
    someone = get._replace(case=replace(get.case, caller=replace(get.case.caller, subject="erin")))
    for call in (get, other, get, someone, get):
        assert judge.judge(call).rule == "mesh/reads"
    # The third forgets the first two, and so get is judged once more.
    assert len(decided) == 4


def test_calls_that_are_alike_are_judged_anew_once_another_bundle_is_in_force() -> None:
    judge, [call] = judge_of(READS), calls("10.0.0.1")
    before = judge.judge(call)
    judge.in_force(call.time_us, parse_bundle(FROM_HOME, {}))
    after = judge.judge(call)
    assert before.bundle != after.bundle
    assert judge.judge(call._replace(time_us=call.time_us - 1)) == before
