"""Keeps one thing running that may die: started, watched, started again with growing pauses."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from llmesh.errors import Unavailable
from model_server.engine import Mortal

__all__ = ["Keeper"]

log = logging.getLogger("llmesh.model")

T = TypeVar("T", bound=Mortal)

PAUSE_FIRST_S = 0.5
PAUSE_MOST_S = 30.0
# One that lived as long is started again after the first pause.
HEALTHY_S = 60.0
# What callers are told to wait while it has never been ready, and does not know how long a start takes.
START_S = 15.0


class Keeper(Generic[T]):
    """Runs one thing until closed. `run` is to be run by one task, once."""

    def __init__(self, name: str, start: Callable[[], Awaitable[T]], *, tell: Callable[[bool], None]) -> None:
        """name: for the log and for callers. start: begins another one. tell: told whether one is ready."""
        self._name = name
        self._start = start
        self._tell = tell
        self._current: T | None = None
        self._start_took_s = START_S
        self._starts = 0

    @property
    def restarts(self) -> int:
        """How often another one was ready after one that died."""
        return max(0, self._starts - 1)

    @property
    def current(self) -> T:
        """The one that runs. Raises Unavailable, with the time that a start takes, if none is ready."""
        if self._current is None:
            raise self.away()
        return self._current

    def away(self) -> Unavailable:
        """What callers are told while none is ready."""
        return Unavailable(
            f"the model `{self._name}` is not ready: it starts",
            retry_after_s=max(1.0, round(self._start_took_s)),
            reason="MODEL_NOT_READY",
        )

    async def run(self) -> None:
        """Keep one running until cancelled, which ends it."""
        pause_s = PAUSE_FIRST_S
        while True:
            began_s = time.monotonic()
            await self._live()
            if time.monotonic() - began_s > HEALTHY_S:
                pause_s = PAUSE_FIRST_S
            log.warning("model starts again", extra={"model": self._name, "after_s": pause_s})
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MOST_S)

    async def _live(self) -> None:
        """Start one, and return when it is dead and gone."""
        began_s = time.monotonic()
        try:
            one = await self._start()
        except Exception:
            # Whatever it was, calls get no answer but that there is none, and the next start may do.
            log.exception("model did not start", extra={"model": self._name})
            return
        self._start_took_s = time.monotonic() - began_s
        self._starts += 1
        try:
            self._become(one)
            log.info("model ready", extra={"model": self._name, "took_s": round(self._start_took_s, 1)})
            await one.wait_for_death()
            log.error("model died", extra={"model": self._name})
        except Exception:
            # Nobody knows whether it lives, so that it can't be kept.
            log.exception("model is taken for dead", extra={"model": self._name})
        finally:
            self._become(None)
            await self._close(one)

    async def _close(self, one: T) -> None:
        """End it, whatever comes meanwhile; who is cancelled goes on to be once it has ended."""
        closing = asyncio.ensure_future(one.close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait([closing])
            raise
        except Exception:
            # It is dead; what is left of it must not keep the next one from starting.
            log.exception("model did not end well", extra={"model": self._name})

    def _become(self, one: T | None) -> None:
        self._current = one
        self._tell(one is not None)
