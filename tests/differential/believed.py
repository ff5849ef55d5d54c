"""Issuers by chance, each with a key and an algorithm of its own, and bindings of every kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from random import Random

from joserfc.jwk import ECKey, KeyParameters, RSAKey

from governance.issuers import Issuer, Issuers, parse_issuers

AUDIENCE = "llmesh"
LIFETIME_S = 7200
# Name -> algorithm.
NAMES = {"corp": "ES256", "partner": "ES384", "cloud": "RS256", "machines": "PS256"}
PLAIN = ("{claim: roles, grants: role}", "{claim: domain, grants: domain}", "{claim: clearances, grants: clearance}")
BINDINGS = (
    *PLAIN,
    "{claim: realm.access, grants: role}",
    "{claim: realm.access.support, grants: clearance}",
    "{claim: groups, grants: domain}",
    "{claim: groups, has: llm-editors, grants: role, value: editor}",
    "{claim: groups, has: support, grants: domain, value: support}",
    "{claim: roles, has: owner, grants: clearance, value: secret}",
    "{claim: mfa, grants: clearance, value: strong}",
    "{claim: mfa, grants: role, value: strong}",
    "{subject: robot-*, grants: role, value: robot}",
    "{subject: a%*, grants: role, value: reader}",
    "{subject: ada, grants: domain, value: support}",
    "{subject: '*', grants: clearance, value: pi}",
)


@cache
def key_of(name: str) -> RSAKey | ECKey:
    """The issuer's key. It is made anew by each process: nothing that is compared hangs on it."""
    about: KeyParameters = {"kid": name, "alg": NAMES.get(name, "ES256"), "use": "sig"}
    if NAMES.get(name) in ("RS256", "PS256"):
        return RSAKey.generate_key(2048, parameters=about)
    return ECKey.generate_key("P-384" if NAMES.get(name) == "ES384" else "P-256", parameters=about)


def keys() -> Mapping[str, str]:
    """Issuer name -> JWKS."""
    return {name: json.dumps({"keys": [key_of(name).as_dict(private=False)]}) for name in NAMES}


def believed(seed: Random) -> Issuers:
    """The issuers: corp's bindings are one of each kind, the others' are by chance."""
    texts = [_issuer("corp", [*PLAIN, BINDINGS[3], BINDINGS[6], BINDINGS[9], *BINDINGS[11:14]])]
    for name in list(NAMES)[1:]:
        bound = [each for each in PLAIN if seed.random() < 0.7]
        bound += seed.sample(BINDINGS[3:], seed.randint(2, 6))
        seed.shuffle(bound)
        texts.append(_issuer(name, bound))
    return parse_issuers("\n".join(["version: 1", "issuers:", *texts]))


def issuer_of(issuers: Issuers, name: str) -> Issuer:
    """One of them."""
    return next(issuer for issuer in issuers.issuers if issuer.name == name)


def _issuer(name: str, bindings: list[str]) -> str:
    return f"""
- name: {name}
  issuer: https://{name}.example
  jwks: {name}.jwks.json
  audiences: [{AUDIENCE}]
  algorithms: [{NAMES[name]}]
  max_lifetime_s: {LIFETIME_S}
  bindings: [{", ".join(bindings)}]"""
