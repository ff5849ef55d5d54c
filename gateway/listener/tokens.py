"""What a caller reads whose token Envoy does not believe: what is wrong with it, rather than where Envoy saw it."""

from __future__ import annotations

import json

# How the response code details begin when Envoy believes no token.
DETAILS = "jwt_authn_access_denied{"

_NOT_SIGNED = "the token is not a signed JWT: three parts joined by dots"
_UNREADABLE = "the token's header is not that of a JWT"
# Envoy's words -> ours. What has its own words keeps them.
_WORDS = {
    "Jwt is missing": "the call has no token",
    "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections": _NOT_SIGNED,
    "Jwt header is an invalid Base64url encoded": _UNREADABLE,
    "Jwt header is an invalid JSON": _UNREADABLE,
    "Jwt is expired": "the token has expired (`exp`)",
    "Jwt not yet valid": "the token is not valid yet (`nbf`)",
    "Jwt verification fails": "the token's signature was not made by its issuer's key",
    "Jwks doesn't have key to match kid or alg from Jwt": (
        "the token's issuer has no key with its `kid` and `alg`, or has it no longer"
    ),
    "Audiences in Jwt are not allowed": "the token is for another audience (`aud`)",
    "Jwt issuer is not configured": "the token is of an unknown issuer (`iss`)",
}


# The same by the response code details, in which Envoy has `_` for spaces.
_TABLE = json.dumps({f"{DETAILS}{theirs.replace(' ', '_')}}}": ours for theirs, ours in _WORDS.items()})
# In CEL: that it is one of those, and what is wrong.
KNOWN = f"response.code_details in {_TABLE}"
WORDS = f"{_TABLE}[response.code_details]"
