"""Moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llmesh.cli import moments
from llmesh.problem import Problem

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("span", "later", "earlier"),
    [
        ("90s", "2026-01-31T12:01:30Z", "2026-01-31T11:58:30Z"),
        ("5m", "2026-01-31T12:05:00Z", "2026-01-31T11:55:00Z"),
        ("2h", "2026-01-31T14:00:00Z", "2026-01-31T10:00:00Z"),
        ("7d", "2026-02-07T12:00:00Z", "2026-01-24T12:00:00Z"),
    ],
)
def test_a_span_is_counted_from_now(span: str, later: str, earlier: str) -> None:
    assert moments.shown(moments.after(span, now=NOW)) == later
    assert moments.shown(moments.before(span, now=NOW)) == earlier


@pytest.mark.parametrize("text", ["2026-01-31T18:00:00Z", "2026-01-31T19:00:00+01:00", "2026-01-31 13:00-05:00"])
def test_a_time_is_itself_whenever_it_is_read(text: str) -> None:
    assert moments.after(text, now=NOW) == moments.before(text, now=NOW) == Timestamp(seconds=1_769_882_400)


@pytest.mark.parametrize("text", ["", "soon", "0s", "-5m", "5", "5 m", "1.5h", "5w", "999999999d", "2026-02-30T00:00Z"])
def test_what_is_no_time_says_what_is(text: str) -> None:
    with pytest.raises(Problem, match=f"`{text}` is no time") as problem:
        moments.after(text, now=NOW)
    assert problem.value.step == "say 90s, 30m, 2h, 1d, or a time such as 2026-01-31T18:00:00Z"


@pytest.mark.parametrize("text", ["2026-01-31T18:00", "2026-01-31"])
def test_a_time_of_no_zone_is_nobodys(text: str) -> None:
    with pytest.raises(Problem, match="names no time zone"):
        moments.before(text, now=NOW)
