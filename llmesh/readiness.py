"""Whether a server does its work now, by the parts that do it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

__all__ = ["Readiness"]


class Readiness:
    """The parts of a server, each ready or not; the server is while any of them is.

    Health is of a server and of its services, and the mesh routes by that: one
    that waited for all its parts would refuse what the others can do. Calls for
    a part that is not ready come here too, then, and are to be answered with
    Unavailable and the time after which to try again. Told by its health: of
    the server and of each of its services, whether any part is ready, and of a
    part under its own name. One without parts is ready from the start. For the
    event loop that serves alone.
    """

    def __init__(self, parts: Iterable[str] = ()) -> None:
        """None of the parts is ready yet."""
        self._ready = dict.fromkeys(parts, False)
        self._ended = False
        self._change = asyncio.Event()

    def tell(self, part: str, *, ready: bool) -> None:
        """Say of a part whether it is ready. Raises KeyError for one that was not named."""
        if self._ready[part] is not ready:
            self._ready[part] = ready
            self._changed()

    def end(self) -> None:
        """Nothing is ready from now on: the server drains."""
        self._ended = True
        self._changed()

    @property
    def ready(self) -> bool:
        """Whether the server is ready."""
        return not self._ended and (not self._ready or any(self._ready.values()))

    def of(self, part: str) -> bool | None:
        """Whether a part is ready; None if there is no such part."""
        ready = self._ready.get(part)
        return None if ready is None else ready and not self._ended

    async def wait_for_change(self) -> None:
        """Return when something is told that was otherwise before."""
        await self._change.wait()

    def _changed(self) -> None:
        self._change.set()
        self._change = asyncio.Event()
