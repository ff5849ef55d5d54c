"""Issuers: who may vouch for callers, and what their tokens grant.

`derive` says what caller a verified token makes; the gateway's Lua filter does
the same in Envoy from the same bindings. A value that is not plain text of the
right form grants nothing: mending it could make it another value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeGuard, cast
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry
from pydantic import Field, field_validator, model_validator

from governance.delegation import ISSUER as MESH
from governance.words import Caller
from llmesh.document import Document, DocumentError, parse_document

# What a granted role, domain or clearance may look like, and a subject: no
# comma (lists travel comma-separated), no control character, bounded.
# The Lua filter holds the same two, as Lua patterns.
GRANT = re.compile(r"[A-Za-z0-9._:@/+-]{1,128}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SURROGATE = re.compile(r"[\ud800-\udfff]")
MAX_SUBJECT_BYTES = 256
# Smaller is not safe, and larger not taken by Envoy; nor is a larger exponent.
RSA_BITS = 2048, 8192
RSA_EXPONENT_BITS = 33

# Algorithm -> the `kty` and, where it has one, the `crv` of its keys.
_KINDS = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "RS256": ("RSA", ""),
    "PS256": ("RSA", ""),
    "EdDSA": ("OKP", "Ed25519"),
}


class Binding(Document):
    """Grants a role, domain or clearance for a claim, or for a subject."""

    claim: str | list[str] = Field(
        "", description="path into the token's claims, by dots; as a list where a claim's own name has dots"
    )
    has: str = Field("", description="only if the claim is this text, or a list that holds it")
    subject: str = Field("", description="only for this subject or, ending in `*`, for those that begin so")
    grants: Literal["role", "domain", "clearance"] = Field(description="what kind of thing it grants")
    value: str = Field(
        "", pattern=r"^([A-Za-z0-9._:@/+-]{1,128})?$", description="what is granted; none: each text of the claim"
    )

    @property
    def path(self) -> tuple[str, ...]:
        """The names that lead to the claim, from the outside in; none for a binding that reads the subject."""
        return tuple(self.claim.split(".") if isinstance(self.claim, str) and self.claim else self.claim)

    @model_validator(mode="after")
    def _makes_sense(self) -> Binding:
        if bool(self.claim) == bool(self.subject):
            raise ValueError("a binding reads either a `claim` or the `subject`")
        if (self.has or self.subject) and not self.value:
            raise ValueError("a binding with `has` or `subject` needs the `value` that it grants")
        if self.has and not self.claim:
            raise ValueError("`has` needs a `claim` to look in")
        return self


class Issuer(Document):
    """Who vouches."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="what rules and records call it")
    issuer: str = Field(min_length=1, max_length=512, description="the `iss` of its tokens")
    jwks: str = Field(
        min_length=1,
        description="its public keys, a JWKS: a file beside this one, in keys/ for a development issuer; or a URL",
    )
    refresh_s: int = Field(
        300, ge=1, le=86400, description="how often keys at a URL are fetched; so long those removed may be believed"
    )
    audiences: list[str] = Field(min_length=1, description="a token must be for one of these")
    algorithms: list[Literal["ES256", "ES384", "RS256", "PS256", "EdDSA"]] = Field(
        min_length=1, description="what its tokens may be signed by"
    )
    max_lifetime_s: int = Field(gt=0, le=7 * 86400, description="the longest a token may be valid, in seconds")
    development: bool = Field(False, description="for one machine: not believed where the mesh listens beyond loopback")  # noqa: FBT003
    bindings: list[Binding] = Field([], description="what of a token counts; nothing else is read")

    @property
    def publishes(self) -> bool:
        """Whether its keys are at a URL, rather than in a file."""
        return "://" in self.jwks

    @field_validator("jwks")
    @classmethod
    def _is_a_file_or_a_safe_url(cls, jwks: str) -> str:
        if "://" not in jwks:
            return jwks
        url = urlsplit(jwks)
        if url.scheme not in ("https", "http") or not url.hostname:
            raise ValueError(f"`{jwks}` is no URL of keys: expected https://")
        if url.username is not None or url.fragment:
            raise ValueError("a URL of keys has no password and no fragment: what it answers is public")
        if url.scheme == "http" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(
                f"`{url.hostname}` is another machine, which could be anybody without TLS: expected https://"
            )
        return jwks

    @model_validator(mode="after")
    def _develops_with_a_file(self) -> Issuer:
        if self.development and self.publishes:
            raise ValueError("a development issuer's keys are a file in keys/")
        return self


class Issuers(Document):
    """Every issuer the mesh believes."""

    version: Literal[1] = Field(description="of this form of the file")
    issuers: list[Issuer] = Field(min_length=1, description="each with a name of its own")

    @model_validator(mode="after")
    def _are_not_the_mesh(self) -> Issuers:
        if any(issuer.name == MESH for issuer in self.issuers):
            raise ValueError(f"no issuer can be named `{MESH}`: that is the mesh itself, which vouches for its tools")
        return self

    @model_validator(mode="after")
    def _tell_apart(self) -> Issuers:
        for label, values in (("name", [i.name for i in self.issuers]), ("issuer", [i.issuer for i in self.issuers])):
            if len(set(values)) != len(values):
                raise ValueError(f"two issuers have the same `{label}`")
        return self


def parse_issuers(text: str, *, file: str = "issuers.yaml") -> Issuers:
    """The issuers that the text holds. Raises DocumentError."""
    return parse_document(Issuers, text, file=file)


def usable_keys(issuer: Issuer, jwks: str) -> str:
    """The JWKS with only public keys of the issuer's algorithms, each marked with its own.

    A key without `alg`, which Envoy would use for any, is for the one of the issuer's that it can be for. Raises
    DocumentError if none is left, or one is private or not a key that Envoy can use: it would go on with the keys
    from before.
    """
    keys = _keys_in(jwks)
    if keys is None:
        raise DocumentError(issuer.jwks, 1, "not a JWKS: expected an object with `keys`, a list of objects")
    if any(part in key for key in keys for part in ("d", "k", "p", "q")):
        raise DocumentError(issuer.jwks, 1, "holds a private or shared key; publish only the public part")
    usable: list[Mapping[str, object]] = []
    for number, key in enumerate(keys, 1):
        marked = {**key, "alg": key.get("alg", _only_algorithm(issuer, key))}
        if marked["alg"] not in issuer.algorithms or key.get("use", "sig") != "sig":
            continue
        if fault := _fault(marked):
            raise DocumentError(issuer.jwks, 1, f"key {number} is no key for {marked['alg']}: {fault}")
        usable.append(marked)
    if not usable:
        raise DocumentError(issuer.jwks, 1, f"no key has an `alg` of {', '.join(issuer.algorithms)}")
    return json.dumps({"keys": usable}, sort_keys=True)


def _only_algorithm(issuer: Issuer, key: Mapping[str, object]) -> str:
    """The one of the issuer's algorithms that a key of this kind can be for; empty if there are more, or none."""
    kind = key.get("kty"), key.get("crv", "")
    found = [algorithm for algorithm in issuer.algorithms if _KINDS[algorithm] == kind]
    return found[0] if len(found) == 1 else ""


def _fault(key: Mapping[str, object]) -> str:
    """Why a key cannot be used for its algorithm; empty if it can be."""
    kind, curve = _KINDS[str(key["alg"])]
    if key.get("kty") != kind:
        return f"its `kty` must be {kind}"
    if curve and key.get("crv") != curve:
        return f"its `crv` must be {curve}"
    try:
        numbers = JWKRegistry.import_key(cast("dict[str, str | list[str]]", key)).public_key
    except (JoseError, UnsupportedAlgorithm, ValueError, LookupError, TypeError) as error:
        return str(error) or type(error).__name__
    if isinstance(numbers, RSAPublicKey):
        if not RSA_BITS[0] <= numbers.key_size <= RSA_BITS[1]:
            return f"it has {numbers.key_size} bits, expected {RSA_BITS[0]} to {RSA_BITS[1]}"
        if numbers.public_numbers().e.bit_length() > RSA_EXPONENT_BITS:
            return f"its `e` has more than {RSA_EXPONENT_BITS} bits"
    return ""


def _keys_in(jwks: str) -> list[Mapping[str, object]] | None:
    try:
        document: object = json.loads(jwks)
    except (ValueError, RecursionError):
        return None
    keys = document.get("keys") if _is_object(document) else None
    if not isinstance(keys, list):
        return None
    found = [key for key in cast("list[object]", keys) if _is_object(key)]
    return found if len(found) == len(cast("list[object]", keys)) else None


def derive(issuer: Issuer, claims: Mapping[str, object]) -> Caller:
    """The caller that a verified token of the issuer's makes.

    Claims missing, null or of a wrong type grant nothing. An unusable subject
    makes nobody: every field empty.
    """
    subject = claims.get("sub")
    if not _usable_subject(subject):
        return Caller()
    granted: dict[str, list[str]] = {"role": [], "domain": [], "clearance": []}
    for binding in issuer.bindings:
        for value in _granted(binding, subject, claims):
            if value not in granted[binding.grants]:
                granted[binding.grants].append(value)
    return Caller(
        issuer=issuer.name,
        subject=subject,
        roles=tuple(granted["role"]),
        domain=granted["domain"][0] if granted["domain"] else "",
        clearances=tuple(granted["clearance"]),
    )


def _usable_subject(subject: object) -> TypeGuard[str]:
    # Spaces at the ends would be lost where it travels as a header (RFC 9113,
    # 8.2.1), which would make it another subject.
    if not isinstance(subject, str) or CONTROL.search(subject) or subject != subject.strip(" "):
        return False
    # A lone surrogate, which JSON can spell, is no text.
    return 0 < len(subject.encode(errors="surrogatepass")) <= MAX_SUBJECT_BYTES and not SURROGATE.search(subject)


def _granted(binding: Binding, subject: str, claims: Mapping[str, object]) -> Iterator[str]:
    if binding.subject:
        prefix = binding.subject.removesuffix("*")
        if subject == binding.subject or (binding.subject.endswith("*") and subject.startswith(prefix)):
            yield binding.value
        return
    texts = list(_texts(_claim(claims, binding.path)))
    if not binding.value:
        yield from (text for text in texts if GRANT.fullmatch(text))
    elif not binding.has or binding.has in texts:
        yield from [binding.value] if texts else []


def _claim(claims: Mapping[str, object], path: Iterable[str]) -> object:
    value: object = claims
    for step in path:
        value = value.get(step) if _is_object(value) else None
    return value


def _is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    return [item for item in cast("list[object]", value) if isinstance(item, str)] if isinstance(value, list) else []
