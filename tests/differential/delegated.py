"""Calls that tools make for callers, by tokens as the gateway mints them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

from joserfc import jwt
from joserfc.jwk import OctKey

from governance.delegation import MAX_HOPS, Delegation, Refused, derive, refusal, tool_itself
from governance.issuers import Issuers
from governance.words import Caller
from tests.differential.claims import Claims
from tests.differential.rules import ACTORS
from tests.envoy import KEYS, Metadata

HOUR_S, DAY_S = 3600, 86400
EVIL = OctKey.generate_key(256, {"alg": "HS256", "kid": KEYS.signing().kid or ""})
# Stands for the method that is called.
CALLED = ""


@dataclass(frozen=True, eq=False)
class Delegated:
    """A call by a tool, or by a fan-out, for somebody.

    acting: paths of the methods that act, the first called first; may hold CALLED. None in a caller's own fan-out.
    only: path of the one method that it is for. absent: whether the called one was
    not on the mesh. good: whether the mesh is to believe it; if not, its key is another.
    """

    name: str
    behind: Caller
    acting: tuple[str, ...]
    only: str = CALLED
    absent: bool = False
    good: bool = True
    lives_s: int = HOUR_S
    issuer: str = "llmesh"

    @property
    def claims(self) -> Claims:
        """What its token says, of the call of any method."""
        return self._delegation(CALLED).claims()

    def metadata(self, path: str) -> Metadata:
        """What is sent with a call of a method."""
        key = KEYS.signing() if self.good or self.lives_s < 0 else EVIL
        token = jwt.encode({"alg": "HS256", "kid": key.kid}, self._delegation(path).claims(), key)
        return (("llmesh-delegation", token),)

    def caller(self, issuers: Issuers) -> Caller:
        """Who is behind it, with the tool that acts; nobody if it is not to be believed."""
        return derive(self.claims) if self.good else Caller()

    def refusal(self, path: str) -> Refused | None:
        """Why the call of a method is refused whatever the rules say; None if it is not."""
        return refusal(self._delegation(path).claims(), path)

    def _delegation(self, path: str) -> Delegation:
        acting = tuple(each or path for each in self.acting)
        absent = (path,) if self.absent else ()
        return Delegation(
            self.behind, acting, (self.only or path,), "parent", int(time.time()) + self.lives_s, absent=absent
        )


def delegated(seed: Random, callers: Iterable[Caller]) -> Iterator[Delegated]:
    """One for each caller who is somebody; and for the first of them those that are refused, or not believed."""
    somebody = [caller for caller in callers if caller.subject]
    for index, caller in enumerate(somebody):
        yield Delegated(f"d{index}", caller, _acting(seed, seed.randint(1, MAX_HOPS)))
        yield Delegated(f"f{index}", caller, ())
    first = somebody[0]
    yield Delegated("in a circle", first, (CALLED, *_acting(seed, 2)))
    yield Delegated("by too many", first, _acting(seed, MAX_HOPS + 1))
    yield Delegated("in a fan-out to another method", first, (), only="/acme.other.v1.Other/Get")
    yield Delegated("for another method", first, _acting(seed, 1), only="/acme.other.v1.Other/Get")
    itself = tool_itself(ACTORS[0], "support")
    yield Delegated("in its own right", itself, ())
    yield Delegated("in its own right to another method", itself, (), only="/acme.other.v1.Other/Get")
    yield Delegated("for what is not there", first, _acting(seed, 1), only="/acme.other.v1.Other/Get", absent=True)
    yield Delegated("signed with another key", first, _acting(seed, 1), good=False)
    yield Delegated("of a call that has ended", first, _acting(seed, 1), good=False, lives_s=-DAY_S)


def _acting(seed: Random, count: int) -> tuple[str, ...]:
    return tuple(f"/{seed.choice(ACTORS)}/Ask{index}" for index in range(count))
