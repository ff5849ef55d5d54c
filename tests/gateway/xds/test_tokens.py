"""Tokens that the real Envoy does not believe, of several issuers, and what whoever sent one reads."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace

import grpc
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from governance.issuers import parse_issuers
from tests.envoy import ISSUER, ISSUERS, JWKS, KEY, Answer, Mesh, Metadata, bearer, mesh, policy_of, token

SERVICE = "acme.support.v1.Tickets"
GET = f"/{SERVICE}/Get"
PARTNER = "https://partner.example"
# A second one, as believed as the first, whose key goes by the same name.
BOTH = ISSUERS + ISSUERS.split("issuers:\n")[1].replace("corp", "partner").replace(": 7200", ": 60")
PARTNERS_KEY = ECKey.generate_key("P-256", parameters={"kid": "one", "alg": "ES256", "use": "sig"})
POLICY = replace(
    policy_of(issuers=parse_issuers(BOTH)),
    keys={"corp": JWKS, "partner": json.dumps({"keys": [PARTNERS_KEY.as_dict(private=False)]})},
)
WRONG_CURVE = ECKey.generate_key("P-384", parameters={"kid": "one", "alg": "ES384"})
UNSIGNED = "the token is not a signed JWT"
NO_KEY = "the token's issuer has no key with its `kid` and `alg`"
OTHER_SIGNER = "the token's signature was not made by its issuer's key"
LIVES_LONGER = "the token lives longer than 7200 s"
REASONS = {
    "nothing": "TOKEN_MISSING",
    "rubbish": "TOKEN_MALFORMED",
    "three dots": "TOKEN_MALFORMED",
    "expired": "TOKEN_EXPIRED",
    "no expiry": "TOKEN_NEVER_EXPIRES",
    "not yet": "TOKEN_NOT_YET_VALID",
    "lives too long": "TOKEN_LIVES_TOO_LONG",
    "wrong audience": "TOKEN_FOR_ANOTHER",
    "wrong issuer": "TOKEN_ISSUER_UNKNOWN",
    "a name that nobody's key has": "TOKEN_KEY_UNKNOWN",
    "a signature cut short": "TOKEN_FORGED",
    "9 kB": "TOKEN_TOO_LARGE",
}


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with mesh() as made:
        await made.publish(made.tool(SERVICE), policy=POLICY)
        yield made


def part(content: Mapping[str, object] | bytes) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def claims() -> dict[str, str | int]:
    now = int(time.time())
    return {"iss": ISSUER, "aud": "llmesh", "sub": "sam", "iat": now, "exp": now + 3600}


def without_signature() -> str:
    return f"{part({'alg': 'none'})}.{part(claims())}."


def signed_with_the_public_key_as_a_secret() -> str:
    text = f"{part({'alg': 'HS256', 'kid': 'one'})}.{part(claims())}"
    return f"{text}.{part(hmac.digest(KEY.as_pem(private=False), text.encode(), hashlib.sha256))}"


def partners(*, key: ECKey = PARTNERS_KEY, **changed: object) -> str:
    return token({"iss": PARTNER, "exp": int(time.time()) + 60, **changed}, key=key)


def bad_tokens() -> dict[str, tuple[Metadata, str]]:
    """By what is wrong with it: what is sent, and how the answer begins. Made when it is needed: tokens expire."""
    now = int(time.time())
    return {
        "nothing": ((), "the call has no token"),
        "no bearer": ((("authorization", token()),), "the call has no token"),
        "rubbish": (bearer("rubbish"), UNSIGNED),
        "three dots": (bearer("a.b.c"), "the token's header is not that of a JWT"),
        "two tokens": (bearer(f"{token()},{token()}"), UNSIGNED),
        "expired": (bearer(token(exp=now - 60)), "the token has expired (`exp`)"),
        "no expiry": (bearer(token(exp=...)), "the token never expires (no `exp`)"),
        "an expiry of 0": (bearer(token(exp=0)), "the token never expires"),
        "an expiry of less than a second": (bearer(token(exp=0.5)), "the token never expires"),
        "an expiry that is text": (bearer(token(exp="never")), "Jwt payload [exp] field is not an integer"),
        "not yet": (bearer(token(nbf=now + 600)), "the token is not valid yet (`nbf`)"),
        "lives too long": (bearer(token(exp=now + 86400)), LIVES_LONGER),
        "lives too long, does not say since when": (bearer(token(exp=now + 86400, iat=...)), LIVES_LONGER),
        "lives too long, from a day on": (bearer(token(iat=now + 86400, exp=now + 86460)), LIVES_LONGER),
        "wrong audience": (bearer(token(aud="elsewhere")), "the token is for another audience (`aud`)"),
        "no audience": (bearer(token(aud=...)), "the token is for another audience (`aud`)"),
        "wrong issuer": (bearer(token(iss="https://evil.example")), "the token is of an unknown issuer (`iss`)"),
        "no issuer": (bearer(token(iss=...)), "the token is of an unknown issuer (`iss`)"),
        "a name that nobody's key has": (bearer(jwt.encode({"alg": "ES256", "kid": "two"}, claims(), KEY)), NO_KEY),
        "one issuer's token by another's key": (bearer(token(key=PARTNERS_KEY)), OTHER_SIGNER),
        "no signature": (bearer(without_signature()), UNSIGNED),
        "a public key as a secret": (bearer(signed_with_the_public_key_as_a_secret()), NO_KEY),
        "wrong curve": (
            bearer(jwt.encode({"alg": "ES384", "kid": "one"}, claims(), WRONG_CURVE, algorithms=["ES384"])),
            NO_KEY,
        ),
        "wrong kind of key": (
            bearer(jwt.encode({"alg": "RS256", "kid": "one"}, claims(), RSAKey.generate_key(2048))),
            NO_KEY,
        ),
        "a signature cut short": (bearer(token()[:-8]), OTHER_SIGNER),
        "claims of another token": (
            bearer(".".join((token().split(".")[0], token(sub="root").split(".")[1], token().split(".")[2]))),
            OTHER_SIGNER,
        ),
        "subject is a number": (bearer(token(sub=5)), "Jwt payload [sub] field is not a string"),
        "9 kB": (bearer(token(padding="a" * 7000)), "the token is too large: its claims take more than 8192 bytes"),
        "30 kB": (bearer(token(padding="a" * 22_000)), "the token is too large: its claims take more than 8192 bytes"),
        "the second issuer's, expired": (bearer(partners(exp=now - 60)), "the token has expired (`exp`)"),
        "the second issuer's, living too long": (
            bearer(partners(exp=now + 3600)),
            "the token lives longer than 60 s, which is the most of its issuer's",
        ),
        "the second issuer's, for another audience": (
            bearer(partners(aud="elsewhere")),
            "the token is for another audience (`aud`)",
        ),
        "the second issuer's, by the first one's key": (bearer(partners(key=KEY)), OTHER_SIGNER),
    }


async def test_a_bad_token_is_unauthenticated_and_told_why(running: Mesh) -> None:
    bad = bad_tokens()
    answers: dict[str, Answer] = {name: await running.call(GET, sent) for name, (sent, _) in bad.items()}

    assert {name: answer.code for name, answer in answers.items()} == dict.fromkeys(
        bad, grpc.StatusCode.UNAUTHENTICATED
    )
    assert {
        name: answer.message for name, answer in answers.items() if not answer.message.startswith(bad[name][1])
    } == {}
    assert all("send `authorization: Bearer TOKEN`" in answer.message for answer in answers.values())
    assert all(answer.metadata["x-llmesh-call-id"] for answer in answers.values())
    assert not running.backend.calls


async def test_what_is_wrong_with_a_token_has_a_reason_that_a_program_can_read(running: Mesh) -> None:
    bad = bad_tokens()
    answers = {name: await running.call(GET, bad[name][0]) for name in REASONS}

    assert {name: answer.info.reason for name, answer in answers.items()} == REASONS
    assert all(answer.status and answer.status.message == answer.message for answer in answers.values())
    assert {answer.info.domain for answer in answers.values()} == {"llmesh"}


async def test_a_bad_token_is_refused_each_time_it_is_shown(running: Mesh) -> None:
    bad = bad_tokens()
    for name in ("lives too long", "no expiry", "30 kB"):
        codes = {(await running.call(GET, bad[name][0])).code for _ in range(3)}
        assert codes == {grpc.StatusCode.UNAUTHENTICATED}, name
    assert not running.backend.calls


async def test_two_issuers_same_subject_are_two_callers(running: Mesh) -> None:
    seen = [(await running.call(GET, bearer(text))).seen for text in (token(), partners(), token(), partners())]

    assert [(each["x-llmesh-issuer"], each["x-llmesh-subject"]) for each in seen] == [
        ("corp", "sam"),
        ("partner", "sam"),
    ] * 2


@pytest.mark.parametrize("size", [6000, 6080])
async def test_a_token_of_8_kib_of_claims_is_believed(running: Mesh, size: int) -> None:
    text = token(padding="a" * (size - len(token().split(".")[1]) * 3 // 4))
    assert len(text.split(".")[1]) <= 8192

    assert (await running.call(GET, bearer(text))).code is grpc.StatusCode.OK


async def test_a_token_without_the_time_of_its_issue_lives_from_now(running: Mesh) -> None:
    assert (await running.call(GET, bearer(token(iat=...)))).code is grpc.StatusCode.OK


async def test_an_issuer_that_is_removed_vouches_for_nobody(running: Mesh) -> None:
    known = partners()
    assert (await running.call(GET, bearer(known))).code is grpc.StatusCode.OK

    await running.publish(running.tool(SERVICE))

    answer = await running.call(GET, bearer(known))
    assert (answer.code, answer.message.split(";")[0]) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "the token is of an unknown issuer (`iss`)",
    )
