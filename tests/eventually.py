"""Waiting for what another process brings about: bounded, and with its last objection told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from llmesh import MeshError

T = TypeVar("T")

PAUSE_S = 0.02
# Patience: what is waited for takes milliseconds on a machine that has time for it.
WITHIN_S = 60.0


async def eventually(check: Callable[[], Awaitable[T]], *, within_s: float = WITHIN_S, pause_s: float = PAUSE_S) -> T:
    """What check returns once it raises no AssertionError and no failed call; raises its last one after within_s."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await check()
        except (AssertionError, MeshError, grpc.RpcError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(pause_s)
