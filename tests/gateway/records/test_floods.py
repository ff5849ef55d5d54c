"""Floods of refused calls: their records stay few, count each call, and push out nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from gateway.records import store
from gateway.records.logged import Outcome
from llmesh.mesh_file import RecordSettings
from tests.gateway.records.lines import DENIED, SERVICE, Kept, caught_up, full_disk, line

NO_TOKEN = {"details": "jwt_authn_access_denied{Jwt_is_missing}", "code": "Unauthenticated", "caller": "", "issuer": ""}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path, settings=RecordSettings(refused_per_minute=3))


def denied(count: int, **changed: object) -> list[bytes]:
    facts = {"details": DENIED.format("mesh/no"), "code": "PermissionDenied", **changed}
    return [line(**facts) for _ in range(count)]


def counted(kept: Kept) -> list[int]:
    """Of each record in order."""
    return [record.counted for record in kept.records()]


def test_refused_calls_beyond_the_rate_are_counted_in_one_record(kept: Kept) -> None:
    kept.log(*denied(10))
    ingest = kept.ingest()
    caught_up(ingest)
    assert counted(kept) == [0, 0, 0, 7]
    assert (ingest.made, ingest.counted) == (4, 6)
    record = kept.records()[-1]
    assert (record.logged.case.caller.subject, record.logged.case.service) == ("sam", SERVICE)
    assert (record.logged.case.outcome, record.judgement.rule) == (Outcome.DENIED, "mesh/no")


def test_calls_that_were_let_through_have_a_record_each(kept: Kept) -> None:
    kept.log(*(line() for _ in range(50)))
    caught_up(kept.ingest())
    assert counted(kept) == [0] * 50


def test_a_minute_has_one_such_record_and_the_next_begins_anew(kept: Kept) -> None:
    ingest = kept.ingest()
    for _ in range(3):
        kept.log(*denied(4))
        caught_up(ingest)
    kept.log(*denied(5, time="2026-01-31T12:01:00.000Z"))
    caught_up(ingest)
    assert counted(kept) == [0, 0, 0, 9, 0, 0, 0, 2]


def test_a_clock_that_jumps_ahead_and_back_merges_no_later_minutes(kept: Kept) -> None:
    ingest = kept.ingest()
    for time in ("2036-01-31T12:00", "2026-01-31T12:00", "2026-01-31T12:01"):
        kept.log(*denied(5, time=f"{time}:00.000Z"))
        caught_up(ingest)
    assert counted(kept) == [0, 0, 0, 2] * 3


def test_a_call_that_is_logged_late_counts_to_the_minute_that_is_not_over(kept: Kept) -> None:
    ingest = kept.ingest()
    for time in ("2026-01-31T12:01", "2026-01-31T12:00"):
        kept.log(*denied(5, time=f"{time}:00.000Z"))
        caught_up(ingest)
    assert counted(kept) == [0, 0, 0, 7]


def test_each_caller_has_a_rate_of_their_own_and_all_without_identity_one(kept: Kept) -> None:
    kept.log(*denied(4), *denied(3, caller="eve"), *(line(**NO_TOKEN, address=f"10.0.0.{n}") for n in range(9)))
    caught_up(kept.ingest())
    found = Counter[tuple[str, int]]()
    for record in kept.records():
        found[record.logged.case.caller.subject, record.counted] += 1
    assert found == {("sam", 0): 3, ("sam", 1): 1, ("eve", 0): 3, ("", 0): 3, ("", 6): 1}


def test_names_that_a_caller_makes_up_do_not_make_records(kept: Kept) -> None:
    kept.log(*(line(path=f"/made.up.Tool{n}/Method", contract=None, code="Unimplemented") for n in range(40)))
    kept.log(*denied(4), *denied(4, path=f"/{SERVICE}/List"))
    caught_up(kept.ingest())
    assert counted(kept) == [0, 0, 0, 37, 4, 4]


def test_what_the_disk_does_not_take_is_counted_once_there_is_room(kept: Kept) -> None:
    ingest = kept.ingest()
    kept.log(*denied(5))
    caught_up(ingest)
    kept.log(*denied(500), *(line() for _ in range(300)))
    with full_disk(), pytest.raises(SQLAlchemyError):
        caught_up(ingest)
    assert counted(kept) == [0, 0, 0, 2]
    caught_up(ingest)
    assert sum(max(1, each) for each in counted(kept)) == 5 + 500 + 300


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["denied", "allowed", "new gateway"]), min_size=5, max_size=20))
def test_no_call_is_missing_and_none_is_counted_twice(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str]
) -> None:
    kept = Kept(tmp_path_factory.mktemp("kept"), settings=RecordSettings(refused_per_minute=1))
    ingest = kept.ingest()
    try:
        for act in acts:
            match act:
                case "denied":
                    kept.log(*denied(3))
                case "allowed":
                    kept.log(line())
                case _:
                    ingest = kept.ingest()
            caught_up(ingest)
        assert sum(max(1, each) for each in counted(kept)) == 3 * acts.count("denied") + acts.count("allowed")
    finally:
        if kept.engine:
            kept.engine.dispose()


def test_beyond_what_is_to_be_kept_the_oldest_are_deleted_which_is_told(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "DELETED_AT_ONCE", 50)
    kept.settings = RecordSettings(keep_at_most=1000)
    kept.log(*(line(call_id=f"call-{number}") for number in range(1100)))
    ingest = kept.ingest()
    caught_up(ingest)
    assert not ingest.shortened
    kept.clock.stand_still(10)
    for _ in range(4):
        ingest.step()
    assert kept.call_ids() == [f"call-{number}" for number in range(100, 1100)]
    assert ingest.shortened
    assert caplog.text.count("records are deleted before their time") == 1


def test_a_call_is_found_however_many_were_made_since(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "RUN", 4)
    monkeypatch.setattr(store, "_RUNS_AT_ONCE", 2)
    ingest = kept.ingest()
    for number in range(40):
        parent = f"call-{number - 39}" if number == 39 else None
        kept.log(line(call_id=f"call-{number}", parent=parent))
        caught_up(ingest)
    for number in (1, 17, 38):
        assert [record.logged.call_id for record in kept.open().tree(f"call-{number}")] == [f"call-{number}"]
    assert [record.logged.call_id for record in kept.open().tree("call-0")] == ["call-0", "call-39"]
    assert kept.open().tree("call-40") == []
