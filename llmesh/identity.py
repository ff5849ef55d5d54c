"""The development issuer: a key of this mesh directory that vouches for local callers.

It is one more entry of governance/policies/issuers.yaml, refused when the mesh
listens beyond loopback. `llmesh up` makes the key before Envoy reads the JWKS;
`llmesh login` writes down who to be, `llmesh token` mints.
"""

from __future__ import annotations

__all__ = ["AUDIENCE", "DEFAULT_LIFETIME_S", "DEV", "ISSUER", "MAX_LIFETIME_S", "DevCaller", "DevIssuer", "Logins"]

import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmesh.home import Home, write_atomically, write_once
from llmesh.problem import Problem

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

ISSUER = "https://dev.llmesh.local"
AUDIENCE = "llmesh"
ALGORITHM = "ES256"
DEFAULT_LIFETIME_S = 3600
# What a mesh takes of a token: what looks otherwise grants nothing, and without a usable subject there is no caller.
# governance/issuers.py holds the same.
_GRANT = re.compile(r"[A-Za-z0-9._:@/+-]{1,128}")
_NO_SUBJECT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|^ | $")
_SUBJECT_MAX_BYTES = 256
# What issuers.yaml lets a token of this issuer live.
MAX_LIFETIME_S = 12 * 3600


@dataclass(frozen=True, slots=True)
class DevCaller:
    """Somebody `llmesh login` can be, and what the issuer says of them."""

    name: str
    roles: tuple[str, ...] = ()
    domain: str = ""
    clearances: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise Problem for what the mesh would drop from a token without a word."""
        length = len(self.name.encode(errors="surrogatepass"))
        if not 0 < length <= _SUBJECT_MAX_BYTES or _NO_SUBJECT.search(self.name):
            raise Problem(
                f"nobody can be called {self.name!r}",
                f"a name has 1 to {_SUBJECT_MAX_BYTES} bytes, no control characters and no spaces at its ends",
            )
        grants = [("role", role) for role in self.roles]
        grants += [("domain", self.domain)] if self.domain else []
        grants += [("clearance", clearance) for clearance in self.clearances]
        for kind, value in grants:
            if not _GRANT.fullmatch(value):
                raise Problem(
                    f"{value!r} can be no {kind}",
                    f"a {kind} has 1 to 128 letters, digits and `._:@/+-`; for several roles or clearances "
                    "repeat the option",
                )


# Who `llmesh up` signs in: may read everything, may not delete tickets.
DEV = DevCaller("dev", roles=("developer",), domain="engineering")


@dataclass(frozen=True, slots=True)
class DevIssuer:
    """Mints tokens with the key of one mesh directory."""

    key: ECKey

    @classmethod
    def open(cls, home: Home) -> DevIssuer:
        """The issuer of this mesh directory; its key is made on first use.

        Two processes that make the key at once end with the same one. The JWKS
        beside it is written again whenever it isn't the key's.
        """
        from joserfc.jwk import ECKey  # a sixth of a second that whoever brings a token need not spend

        pem = home.dev_key
        if not pem.exists():
            write_once(pem, ECKey.generate_key("P-256").as_pem(private=True))
        key = ECKey.import_key(pem.read_bytes(), {"alg": ALGORITHM, "use": "sig"})
        key.ensure_kid()
        jwks = json.dumps({"keys": [key.as_dict(private=False)]}).encode()
        path = home.dev_jwks
        if not path.exists() or path.read_bytes() != jwks:
            write_atomically(path, jwks, 0o644)
        return cls(key)

    def mint(self, caller: DevCaller, *, lifetime_s: int = DEFAULT_LIFETIME_S, now_s: float | None = None) -> str:
        """A token for caller that ends lifetime_s after now_s (Unix seconds; None: now)."""
        from joserfc import jwt

        issued = int(time.time() if now_s is None else now_s)
        claims: dict[str, object] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": caller.name,
            "iat": issued,
            "exp": issued + lifetime_s,
            "jti": secrets.token_hex(8),
            "roles": list(caller.roles),
            "clearances": list(caller.clearances),
        }
        if caller.domain:
            claims["domain"] = caller.domain
        return jwt.encode({"alg": ALGORITHM, "kid": self.key.kid}, claims, self.key, algorithms=[ALGORITHM])


@dataclass(frozen=True, slots=True)
class Logins:
    """Who is signed in, and everybody who has been: the content of login.json."""

    current: str = ""
    callers: Mapping[str, DevCaller] = field(default_factory=dict[str, DevCaller])

    @classmethod
    def load(cls, home: Home) -> Logins:
        """The logins of this mesh directory; none if nobody has signed in yet."""
        path = home.login
        try:
            written = json.loads(path.read_bytes())
            callers = {name: _caller(name, facts) for name, facts in written["callers"].items()}
            return cls(written["current"], callers)
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise Problem(f"`{path}` is damaged", "delete it and sign in again: llmesh login --as NAME") from err

    def signed_in(self, caller: DevCaller) -> Logins:
        """These logins with caller added and current."""
        return Logins(caller.name, {**self.callers, caller.name: caller})

    def save(self, home: Home) -> None:
        """Write login.json, readable by its owner alone."""
        callers = {
            caller.name: {
                "roles": list(caller.roles),
                "domain": caller.domain,
                "clearances": list(caller.clearances),
            }
            for caller in self.callers.values()
        }
        content = json.dumps({"current": self.current, "callers": callers}, indent=2)
        write_atomically(home.login, content.encode(), 0o600)

    def get(self, name: str = "") -> DevCaller:
        """The caller of that name, or the current one. Raises Problem if there is none."""
        wanted = name or self.current
        if not wanted:
            raise Problem("nobody is signed in", "sign in first: llmesh login --as NAME --role ROLE")
        if wanted not in self.callers:
            raise Problem(
                f"`{wanted}` has never signed in here", f"sign in first: llmesh login --as {wanted} --role ROLE"
            )
        return self.callers[wanted]


def _caller(name: str, facts: Mapping[str, object]) -> DevCaller:
    return DevCaller(name, _texts(facts["roles"]), str(facts["domain"]), _texts(facts["clearances"]))


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(str(item) for item in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] JSON
