"""The mesh's own keys, which sign what tools may call for their callers.

One file of two keys: the newer signs, and what the older one signed is still
believed. Every day there is a new file, with a new name: Envoy reads a file
once. Only this user may read them, and they show in no dump. Gateways that
succeed one another, or run beside each other in one mesh directory, find the
same files and so the same keys.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path

from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OctKey

from gateway.clock import Clock
from llmesh.home import Home, write_once

log = logging.getLogger(__name__)

__all__ = ["Keys"]

POLL_S = 10.0
# Longer than any token lives, so that the key before the last one signed nothing that still counts.
TURN_S = 86_400
# In which Envoy is told of a new key before it signs.
SETTLE_S = 60
BITS = 256
# A gateway that is about to end may have told Envoy of the one before.
_KEPT_FILES = 3


@dataclass(frozen=True, slots=True)
class _File:
    """One file. keys: the newest first, one or two. made_s: Unix seconds."""

    path: Path
    made_s: int
    keys: tuple[OctKey, ...]


class Keys:
    """The keys of one mesh directory."""

    def __init__(self, home: Home, clock: Clock) -> None:
        """Read the newest file, or make the first one. Raises OSError if the disk does not let us."""
        self._home = home
        self._clock = clock
        self._newest = self._read() or self._make(())

    @property
    def path(self) -> str:
        """The file that Envoy is to believe, a JWKS."""
        return str(self._newest.path)

    def signing(self) -> OctKey:
        """The key that signs now."""
        *_, older = self._newest.keys
        settled = self._clock.unix_s() - self._newest.made_s >= SETTLE_S
        return self._newest.keys[0] if settled else older

    async def watch(self) -> AsyncGenerator[None]:
        """Once for each new file that Envoy is to believe."""
        while True:
            await self._clock.sleep(POLL_S)
            before = self._newest
            try:
                await asyncio.to_thread(self._look)
            except OSError:
                log.exception("delegation keys not turned over")
            if self._newest.path != before.path:
                log.info("delegation keys turned over")
                yield

    def _look(self) -> None:
        found = self._read()
        if found is None or self._clock.unix_s() - found.made_s >= TURN_S:
            found = self._make((found or self._newest).keys[:1])
            for old in sorted(self._paths(), reverse=True)[_KEPT_FILES:]:
                old.unlink(missing_ok=True)
        self._newest = found

    def _make(self, before: tuple[OctKey, ...]) -> _File:
        """A file with a new key; another gateway's, if that made one in the same second."""
        made_s = int(self._clock.unix_s())
        key = OctKey.generate_key(BITS, {"alg": "HS256", "use": "sig"})
        key.ensure_kid()
        path = self._home.delegation_keys(made_s)
        content = KeySet([key, *before]).as_dict(private=True)
        write_once(path, json.dumps(content).encode())
        found = _read(path)
        if found is None:
            raise OSError(f"`{path}` holds no keys")
        return found

    def _read(self) -> _File | None:
        found = (_read(path) for path in sorted(self._paths(), reverse=True))
        return next((file for file in found if file), None)

    def _paths(self) -> Iterator[Path]:
        return self._home.delegation_keys(0).parent.glob("delegation-*.jwks.json")


def _read(path: Path) -> _File | None:
    """The file; None if it is damaged."""
    try:
        made_s = int(path.name.removeprefix("delegation-").removesuffix(".jwks.json"))
        keys = [OctKey.import_key(key) for key in json.loads(path.read_bytes())["keys"]]
        return _File(path, made_s, tuple(keys[:2])) if keys else None
    except (OSError, ValueError, LookupError, TypeError, JoseError) as error:
        log.error("delegation keys refused", extra={"path": str(path), "error": str(error)})  # noqa: TRY400
        return None
