"""From the call log to the records: nothing is lost and nothing is there twice, whatever happens to either."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from gateway.records.logged import Outcome
from llmesh.mesh_file import RecordSettings
from llmesh.supervisor.rotation import put_aside
from tests.gateway.records.lines import DENIED, Kept, caught_up, full_disk, line


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def ids(count: int, prefix: str = "call") -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def logged(*call_ids: str) -> list[bytes]:
    return [line(call_id=call_id) for call_id in call_ids]


def test_every_line_becomes_one_record_in_order(kept: Kept) -> None:
    kept.log(*logged(*ids(3)))
    ingest = kept.ingest()
    caught_up(ingest)
    kept.log(*logged("later"))
    caught_up(ingest)
    assert kept.call_ids() == [*ids(3), "later"]
    assert ingest.made == 4


def test_a_gateway_that_begins_anew_reads_on_where_the_last_one_was(kept: Kept) -> None:
    kept.log(*logged("one"))
    caught_up(kept.ingest())
    kept.log(*logged("two"))
    again = kept.ingest()
    caught_up(again)
    assert kept.call_ids() == ["one", "two"]
    assert again.made == 1


def test_two_gateways_at_once_make_each_record_once(kept: Kept) -> None:
    old, new = kept.ingest(), kept.ingest()
    for number in range(10):
        kept.log(*logged(f"call-{number}"))
        (old if number % 2 else new).step()
        new.step()
    caught_up(old)
    assert kept.call_ids() == ids(10)


def test_half_a_line_waits_for_its_other_half(kept: Kept) -> None:
    whole = line(call_id="whole")
    kept.log(*logged("first"), whole[:40])
    ingest = kept.ingest()
    caught_up(ingest)
    assert kept.call_ids() == ["first"]
    kept.log(whole[40:])
    caught_up(ingest)
    assert kept.call_ids() == ["first", "whole"]
    assert ingest.broken_lines == 0


def test_the_call_behind_half_a_line_of_a_killed_envoy_is_kept(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    kept.log(line(call_id="torn")[:40], *logged("behind", "next"))
    ingest = kept.ingest()
    caught_up(ingest)
    assert kept.call_ids() == ["behind", "next"]
    assert ingest.broken_lines == 1
    assert "a line of the call log is broken" in caplog.text


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\n",
        b"{}\n",
        b"[1]\n",
        b"null\n",
        b'"text"\n',
        b"\xff\xfe\x00\n",
        b"[" * 9000 + b"\n",
        line(path=7),
        line(bytes_in="x"),
    ],
)
def test_a_line_that_is_none_is_counted_and_passed_over(kept: Kept, rubbish: bytes) -> None:
    kept.log(*logged("before"), rubbish, *logged("after"))
    ingest = kept.ingest()
    caught_up(ingest)
    assert kept.call_ids() == ["before", "after"]
    assert ingest.broken_lines == 1


def test_what_is_no_text_for_a_database_is_kept_all_the_same(kept: Kept) -> None:
    kept.log(line(call_id="odd", path='/a.B/\ud800\0"x\n'))
    caught_up(kept.ingest())
    [record] = kept.records()
    assert (record.logged.call_id, record.logged.case.method) == ("odd", '??"x\n')


def test_files_that_were_put_aside_are_read_to_their_ends_and_the_new_one_after_them(kept: Kept) -> None:
    kept.log(*logged("one"))
    ingest = kept.ingest()
    caught_up(ingest)
    kept.log(*logged("two"))
    put_aside(kept.path, 5)
    # Envoy goes on with the old file until it is told.
    with (kept.folder / "calls.jsonl.1").open("ab", buffering=0) as old:
        old.write(b"".join(logged("three")))
        kept.log(*logged("four"))
        caught_up(ingest)
        # And one that was taken over from may do so for longer.
        old.write(b"".join(logged("five")))
    caught_up(ingest)
    assert kept.call_ids() == ["one", "two", "three", "four", "five"]


def test_files_put_aside_while_no_gateway_ran_are_read_on(kept: Kept) -> None:
    kept.log(*logged("one"))
    caught_up(kept.ingest())
    for name in ("two", "three", "four"):
        kept.log(*logged(name))
        put_aside(kept.path, 5)
    kept.log(*logged("five"))
    ingest = kept.ingest()
    caught_up(ingest)
    assert kept.call_ids() == ["one", "two", "three", "four", "five"]
    assert not ingest.lost


def test_a_log_that_was_deleted_before_it_was_read_is_told(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    kept.log(*logged("one"))
    caught_up(kept.ingest())
    for name in ("lost", "two"):
        kept.log(*logged(name))
        put_aside(kept.path, 1)
    kept.log(*logged("three"))
    ingest = kept.ingest()
    caught_up(ingest)
    assert kept.call_ids() == ["one", "two", "three"]
    assert ingest.lost
    assert "records of calls are missing" in caplog.text


def test_a_log_that_is_cut_and_begun_anew_is_read_from_its_start(kept: Kept) -> None:
    kept.log(*logged("one", "two"))
    ingest = kept.ingest()
    caught_up(ingest)
    os.truncate(kept.path, 0)
    caught_up(ingest)
    kept.log(*logged("three", "four", "five"))
    caught_up(ingest)
    assert kept.call_ids() == ["one", "two", "three", "four", "five"]


@given(st.lists(st.sampled_from(["call", "half", "rotate", "step", "new gateway", "both"]), max_size=40))
def test_whatever_the_order_each_call_has_one_record(tmp_path_factory: pytest.TempPathFactory, acts: list[str]) -> None:
    kept = Kept(tmp_path_factory.mktemp("kept"))
    ingest, rest, made = kept.ingest(), b"", 0
    try:
        for act in [*acts, "call", "step"]:
            match act:
                case "call":
                    kept.log(rest, *logged(f"call-{made}"))
                    rest, made = b"", made + 1
                case "half" if not rest:
                    whole = line(call_id=f"call-{made}")
                    kept.log(whole[:100])
                    rest, made = whole[100:], made + 1
                case "rotate" if not rest and kept.path.exists():
                    put_aside(kept.path, 100)
                case "step":
                    ingest.step()
                case "new gateway":
                    ingest = kept.ingest()
                case _:
                    kept.ingest().step()
        caught_up(ingest)
        assert sorted(kept.call_ids()) == sorted(ids(made))
        assert not ingest.lost
        assert not ingest.broken_lines
    finally:
        if kept.engine:
            kept.engine.dispose()


def test_what_a_full_disk_does_not_take_is_kept_once_there_is_room(kept: Kept) -> None:
    kept.log(*logged("one"))
    ingest = kept.ingest()
    caught_up(ingest)
    kept.log(*logged(*ids(500)))
    with full_disk(), pytest.raises(SQLAlchemyError):
        caught_up(ingest)
    assert kept.call_ids() == ["one"]
    caught_up(kept.ingest())
    assert kept.call_ids() == ["one", *ids(500)]


def test_records_older_than_is_stated_are_deleted(kept: Kept) -> None:
    kept.settings = RecordSettings(keep_days=1.0)
    kept.log(line(call_id="old", time="1970-01-01T00:00:00.000Z"), line(call_id="new", time="1970-01-02T00:00:00.000Z"))
    ingest = kept.ingest()
    caught_up(ingest)
    assert kept.call_ids() == ["old", "new"]
    kept.clock.stand_still(86_400)
    caught_up(ingest)
    assert kept.call_ids() == ["new"]


def test_a_denied_call_keeps_the_rule_that_the_caller_was_told(kept: Kept) -> None:
    kept.log(line(details=DENIED.format("domain/support/personal-data"), code="PermissionDenied"))
    caught_up(kept.ingest())
    [record] = kept.records()
    assert (record.logged.case.outcome, record.judgement.rule) == (Outcome.DENIED, "domain/support/personal-data")
