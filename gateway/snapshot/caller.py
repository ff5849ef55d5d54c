"""Who calls: the filters that verify a token and derive the caller from it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any as Untyped
from typing import cast

from google.protobuf.message import Message

from gateway.xds.messages import make
from governance.issuers import Issuer, Issuers

# Names of the two filters, delivered on their own.
VERIFY, CALLER = "llmesh.verify", "llmesh.caller"
# Sized for the expected callers; the default of 100 tokens of 4 KiB is not. caller.lua takes claims of
# 8 KiB; header and signature come to that.
CACHED_TOKENS = 10_000
MAX_TOKEN_BYTES = 10_240
CLOCK_SKEW_S = 5

_SCRIPT = "".join(
    resources.files("gateway.snapshot").joinpath(name).read_text() for name in ("claims.lua", "caller.lua")
)


def verify(issuers: Issuers, keys: Mapping[str, str]) -> Message:
    """The filter that lets a call on only with a token of one of the issuers. keys: issuer name -> JWKS."""
    names = [{"provider_name": issuer.name} for issuer in issuers.issuers]
    requires = names[0] if len(names) == 1 else {"requires_any": {"requirements": names}}
    return make(
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        providers={
            issuer.name: {
                "issuer": issuer.issuer,
                "audiences": issuer.audiences,
                "local_jwks": {"inline_string": keys[issuer.name]},
                "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
                # As text: Envoy would make a tree of it for every call, and caller.lua reads it once.
                "forward_payload_header": _payload_header(issuer),
                # How long it may live is for caller.lua, which says so: of Envoy's own, a token that lives too
                # long reads that its signature was wrong.
                "clock_skew_seconds": CLOCK_SKEW_S,
                "jwt_cache_config": {"jwt_cache_size": CACHED_TOKENS, "jwt_max_token_size": MAX_TOKEN_BYTES},
            }
            for issuer in issuers.issuers
        },
        rules=[{"match": {"prefix": "/"}, "requires": requires}],
    )


def derive(issuers: Issuers) -> Message:
    """The filter that turns the verified claims into the typed caller, and takes the token away."""
    script = f"local ISSUERS = {_lua({issuer.name: _bindings(issuer) for issuer in issuers.issuers})}\n{_SCRIPT}"
    return make("envoy.extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": script})


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
