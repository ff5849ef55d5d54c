"""Moments as people write and read them: a time by RFC 3339, or a span from now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from llmesh.problem import Problem

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["after", "before", "shown"]

_SPAN = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def after(text: str, *, now: datetime) -> Timestamp:
    """The moment that a text names, a span counted onwards from now. Raises Problem."""
    return _moment(text, now, 1)


def before(text: str, *, now: datetime) -> Timestamp:
    """The moment that a text names, a span counted backwards from now. Raises Problem."""
    return _moment(text, now, -1)


def shown(moment: Timestamp) -> str:
    """A moment, to the second."""
    return moment.ToDatetime(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _moment(text: str, now: datetime, direction: int) -> Timestamp:
    from google.protobuf.timestamp_pb2 import Timestamp

    made = Timestamp()
    try:
        found = _spanned(text, now, direction) or datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise Problem(f"`{text}` names no time zone", f"say which: {text}Z")
        made.FromDatetime(found)
    except (ValueError, OverflowError) as err:
        raise Problem(f"`{text}` is no time", "say 90s, 30m, 2h, 1d, or a time such as 2026-01-31T18:00:00Z") from err
    return made


def _spanned(text: str, now: datetime, direction: int) -> datetime | None:
    """None if the text is no span. Raises OverflowError."""
    span = _SPAN.fullmatch(text)
    return now + direction * timedelta(**{_UNITS[span[2]]: int(span[1])}) if span else None
