"""Who calls: the filters that verify a token and derive the caller from it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any as Untyped
from typing import cast

from google.protobuf.message import Message

from gateway.snapshot import refusals
from gateway.snapshot.fanout import DELEGATED
from gateway.xds.messages import make, pack
from governance import delegation
from governance.issuers import Issuer, Issuers

# Names of the two filters, delivered on their own.
VERIFY, CALLER = "llmesh.verify", "llmesh.caller"
# Sized for the expected callers; the default of 100 tokens of 4 KiB is not. caller.lua takes claims of
# 8 KiB; header and signature come to that.
CACHED_TOKENS = 10_000
MAX_TOKEN_BYTES = 10_240
CLOCK_SKEW_S = 5

# What carries the token of a call that a tool makes for its caller: the mesh gives it to the tool. No name of ours
# that the edge removes begins so.
DELEGATION = "llmesh-delegation"
# A token ends with the call that it was made for; whole seconds are as exact as it gets.
_DELEGATION_SKEW_S = 1

_SCRIPT = "".join(
    resources.files("gateway.snapshot").joinpath(f"{name}.lua").read_text()
    for name in ("claims", "delegation", "caller")
)


def verify(issuers: Issuers, keys: Mapping[str, str], *, delegation_keys: str) -> Message:
    """The filter that lets a call on only with a token of one of the issuers, or a delegation of the mesh's own.

    keys: issuer name -> JWKS. delegation_keys: path of the JWKS file for delegations.
    """
    names = [{"provider_name": issuer.name} for issuer in issuers.issuers]
    requires = names[0] if len(names) == 1 else {"requires_any": {"requirements": names}}
    return make(
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        providers={
            delegation.ISSUER: _delegations(delegation_keys),
            **{issuer.name: _provider(issuer, keys[issuer.name]) for issuer in issuers.issuers},
        },
        rules=[
            # First: a bad one is refused, whatever else the call brings.
            {
                "match": {"prefix": "/", "headers": [{"name": DELEGATION, "present_match": True}]},
                "requires": {"provider_name": delegation.ISSUER},
            },
            {"match": {"prefix": "/"}, "requires": requires},
        ],
    )


def _provider(issuer: Issuer, keys: str) -> dict[str, Untyped]:
    return {
        "issuer": issuer.issuer,
        "audiences": issuer.audiences,
        "local_jwks": {"inline_string": keys},
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        # As text: Envoy would make a tree of it for every call, and caller.lua reads it once.
        "forward_payload_header": _payload_header(issuer),
        # How long it may live is for caller.lua, which says so: of Envoy's own, a token that lives too
        # long reads that its signature was wrong.
        "clock_skew_seconds": CLOCK_SKEW_S,
        "jwt_cache_config": {"jwt_cache_size": CACHED_TOKENS, "jwt_max_token_size": MAX_TOKEN_BYTES},
    }


def _delegations(keys: str) -> dict[str, Untyped]:
    # From a file, so that the keys show in no dump. Envoy reads it when it is told this: a new key needs a new name.
    # No cache: each token is for one call's own.
    return {
        "issuer": delegation.ISSUER,
        "audiences": [delegation.AUDIENCE],
        "local_jwks": {"filename": keys},
        "from_headers": [{"name": DELEGATION}],
        # For delegation.lua, which takes it away. The edge lets no caller say it.
        "forward_payload_header": DELEGATED,
        "require_expiration": True,
        "clock_skew_seconds": _DELEGATION_SKEW_S,
    }


def derive(issuers: Issuers) -> Message:
    """The filter that turns the verified claims into the typed caller, and takes the token away."""
    limits = f"local MAX_HOPS, MAX_TEXT_BYTES = {delegation.MAX_HOPS}, {delegation.MAX_TEXT_BYTES}\n"
    named = (delegation.ISSUER, delegation.FAN_OUT, refusals.SEND_ANOTHER)
    texts = f"local OURSELVES, FAN_OUT, SEND_ANOTHER = {', '.join(map(_lua, named))}\n"
    bindings = f"local ISSUERS = {_lua({issuer.name: _bindings(issuer) for issuer in issuers.issuers})}\n"
    script = f"{limits}{texts}{bindings}{_SCRIPT}"
    return make(
        "envoy.extensions.filters.http.lua.v3.Lua",
        default_source_code={"inline_string": script},
        # No route asks for what it writes: without this, Envoy would look for the call's route twice.
        clear_route_cache={"value": False},
    )


@cache
def typed() -> dict[str, Untyped]:
    """What a route says of filters, to be given the caller with its types beside the headers."""
    asks = make("envoy.extensions.filters.http.lua.v3.LuaPerRoute", filter_context={"typed": True})
    return {CALLER: pack(asks)}


def _bindings(issuer: Issuer) -> dict[str, Untyped]:
    bindings: list[dict[str, Untyped]] = [
        {
            "claim": list(binding.path),
            "has": binding.has,
            "subject": binding.subject,
            "grants": binding.grants,
            "value": binding.value,
        }
        for binding in issuer.bindings
    ]
    return {
        "issuer": issuer.issuer,
        "payload_header": _payload_header(issuer),
        "max_lifetime_s": issuer.max_lifetime_s,
        "bindings": bindings,
    }


def _payload_header(issuer: Issuer) -> str:
    """What carries a verified payload to caller.lua, which takes it away. The edge lets no caller say it."""
    return f"x-llmesh-payload-{issuer.name}"


def _lua(value: Untyped) -> str:
    """A Lua literal. Text is written byte by byte, so nothing in it can end the literal."""
    if isinstance(value, str):
        return '"' + "".join(f"\\{byte:03d}" for byte in value.encode()) + '"'
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "{" + ",".join(_lua(item) for item in cast("list[Untyped]", value)) + "}"
    fields = cast("dict[str, Untyped]", value)
    return "{" + ",".join(f"[{_lua(key)}]={_lua(item)}" for key, item in sorted(fields.items())) + "}"
