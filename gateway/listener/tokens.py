"""What a caller reads whose token Envoy does not believe: what is wrong with it, rather than where Envoy saw it."""

from __future__ import annotations

from collections.abc import Mapping

from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]

from gateway.snapshot import refusals

# How the response code details begin when Envoy believes no token.
DETAILS = "jwt_authn_access_denied{"
# What a tool that calls for its caller is to do about it.
CALL_FOR_CALLERS = "; send `llmesh-delegation` as it came with the call that is being answered, for as long as it is"

_NOT_SIGNED = "the token is not a signed JWT: three parts joined by dots"
_UNREADABLE = "the token's header is not that of a JWT"
# Envoy's words -> the reason, and ours. What has its own words keeps them.
_FAULTS = {
    "Jwt is missing": ("TOKEN_MISSING", "the call has no token"),
    "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections": (
        "TOKEN_MALFORMED",
        _NOT_SIGNED,
    ),
    "Jwt header is an invalid Base64url encoded": ("TOKEN_MALFORMED", _UNREADABLE),
    "Jwt header is an invalid JSON": ("TOKEN_MALFORMED", _UNREADABLE),
    "Jwt is expired": ("TOKEN_EXPIRED", "the token has expired (`exp`)"),
    "Jwt not yet valid": ("TOKEN_NOT_YET_VALID", "the token is not valid yet (`nbf`)"),
    "Jwt verification fails": ("TOKEN_FORGED", "the token's signature was not made by its issuer's key"),
    "Jwks doesn't have key to match kid or alg from Jwt": (
        "TOKEN_KEY_UNKNOWN",
        "the token's issuer has no key with its `kid` and `alg`, or has it no longer",
    ),
    "Audiences in Jwt are not allowed": ("TOKEN_FOR_ANOTHER", "the token is for another audience (`aud`)"),
    "Jwt issuer is not configured": ("TOKEN_ISSUER_UNKNOWN", "the token is of an unknown issuer (`iss`)"),
}


def statuses(advice: str) -> Mapping[str, status_pb2.Status]:
    """What is answered, by Envoy's response code details, in which it has `_` for spaces. advice: what to do then."""
    return {
        f"{DETAILS}{theirs.replace(' ', '_')}}}": refusals.unbelieved(reason, ours + advice)
        for theirs, (reason, ours) in _FAULTS.items()
    }
