"""What tools in tests of fan-outs do, and how long there is for it."""

from __future__ import annotations

import grpc.aio
import pytest

from gateway.fanout import budget
from tests.gateway.fanout.world import Behaviour, passages


def answer_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a tenth of all time to answer: one process does everything here, and may have to wait for its turn."""
    monkeypatch.setattr(budget, "KEPT_MOST_S", 10.0)


def gives(*scored: tuple[str, float]) -> Behaviour:
    """Answer with these passages."""

    async def answer(_data: bytes, _context: object) -> bytes:
        return passages(*scored)

    return answer


def fails(code: grpc.StatusCode) -> Behaviour:
    """Answer with a code."""

    async def answer(_data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(code, "as ordered")
        raise AssertionError

    return answer
