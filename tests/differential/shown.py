"""What callers show: tokens of each issuer, and some that no issuer vouches for."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

from joserfc import jws

from governance.delegation import Refused
from governance.issuers import Issuers, derive
from governance.words import Caller
from tests.differential.believed import AUDIENCE, LIFETIME_S, NAMES, issuer_of, key_of
from tests.differential.claims import CHOSEN, Claims, by_chance
from tests.envoy import Metadata, bearer

HOUR_S, DAY_S = 3600, 86400
ALGORITHMS = [*NAMES.values()]


@dataclass(frozen=True, eq=False)
class Shown:
    """A token. claims: what it says otherwise than an ordinary one.

    good: whether the mesh is to believe it. escaped: letters beyond ASCII are spelled by numbers.
    algorithm, key: that it is signed with; the issuer's if empty.
    """

    name: str
    issuer: str
    claims: Claims
    good: bool = True
    escaped: bool = False
    algorithm: str = ""
    key: str = ""

    @cached_property
    def token(self) -> str:
        """As it is sent."""
        now = int(time.time())
        told = {
            "iss": f"https://{self.issuer}.example",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + HOUR_S,
            "sub": "sam",
            **{name: now + value.s if isinstance(value, FromNow) else value for name, value in self.claims.items()},
        }
        payload = json.dumps(
            {name: value for name, value in told.items() if value is not ...}, ensure_ascii=self.escaped
        )
        header = {"alg": self.algorithm or NAMES[self.issuer], "kid": self.issuer}
        if header["alg"] in ("none", "HS256"):
            return _unsigned(header, payload, key_of(self.issuer).as_bytes(private=False))
        return jws.serialize_compact(header, payload.encode(), key_of(self.key or self.issuer), ALGORITHMS)

    def metadata(self, path: str) -> Metadata:
        """What is sent, whatever is called."""
        return bearer(self.token)

    def refusal(self, path: str) -> Refused | None:
        """Nothing but the rules refuses a call of its own."""
        return None

    def caller(self, issuers: Issuers) -> Caller:
        """Who shows it, by governance; nobody if it is not to be believed."""
        if not self.good:
            return Caller()
        told = {"sub": "sam", **self.claims}
        return derive(issuer_of(issuers, self.issuer), {key: value for key, value in told.items() if value is not ...})


@dataclass(frozen=True)
class FromNow:
    """A time, in seconds from now."""

    s: int


def _unsigned(header: Mapping[str, object], payload: str, public: bytes) -> str:
    """A token that whoever has the public key can make."""
    signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(payload.encode())}"
    by_public = hmac.digest(public, signed.encode(), "sha256")
    return f"{signed}.{'' if header['alg'] == 'none' else _encoded(by_public)}"


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def chosen_tokens() -> list[Shown]:
    """All chosen claims, by the issuer that has a binding of every kind."""
    return [Shown(name, "corp", claims) for name, claims in CHOSEN.items()]


def shown_by_chance(seed: Random, count: int) -> list[Shown]:
    """Tokens of any issuer."""
    return [
        Shown(f"c{index}", seed.choice(list(NAMES)), by_chance(seed), escaped=seed.random() < 0.5)
        for index in range(count)
    ]


def not_believed() -> list[Shown]:
    """Tokens that make nobody, each but for one thing like one of somebody who may do much."""
    good = Shown("", "corp", {"roles": ["owner", "editor"], "domain": "support", "clearances": ["pii"]}, good=False)
    changed: dict[str, Claims] = {
        "expired": {"exp": FromNow(-DAY_S)},
        "no expiry": {"exp": ...},
        "an expiry of 0": {"exp": 0},
        "an expiry that is text": {"exp": "never"},
        "not yet": {"nbf": FromNow(DAY_S)},
        "lives too long": {"exp": FromNow(LIFETIME_S + DAY_S)},
        "for nobody": {"aud": ...},
        "for another": {"aud": "elsewhere"},
        "for others": {"aud": ["elsewhere", "nowhere"]},
        "of no issuer": {"iss": ...},
        "of an unknown issuer": {"iss": "https://evil.example"},
        "of another issuer than signed it": {"iss": "https://partner.example"},
        "subject is a number": {"sub": 5},
        "subject is a list": {"sub": ["sam"]},
    }
    return [
        *(replace(good, name=name, claims={**good.claims, **claims}) for name, claims in changed.items()),
        replace(good, name="no signature", algorithm="none"),
        replace(good, name="signed with what is public", algorithm="HS256"),
        replace(good, name="signed with another key", key="evil"),
        replace(good, name="signed with another issuer's key", issuer="partner", key="corp", algorithm="ES256"),
    ]
