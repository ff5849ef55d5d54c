"""Claims may be spelled as JSON allows: Envoy's caller is then the one that derive() makes, and else nobody."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator

import grpc
import pytest
from joserfc import jws

from governance.issuers import derive
from tests.envoy import ISSUER, KEY, Mesh, bearer, mesh, policy_of, token

SERVICE = "acme.support.v1.Tickets"
GET = f"/{SERVICE}/Get"
CORP = policy_of().issuers.issuers[0]
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with mesh() as made:
        await made.publish(made.tool(SERVICE))
        yield made


READABLE = [
    r'"sub":"\u0073am","roles":["\u0065ditor"]',
    r'"sub":"\ud83d\ude00 \u00fc\u20ac","roles":[]',
    r'"sub":"a\/b","roles":["a\/b","a\\b","a\"b"]',
    ' "sub" : "sam" ,\n\t"roles" : [ "editor" , "owner" ] ,"domain": "support" ',
    '"sub":"sam","roles":[[],{},"editor",null,true,false,-1.5e+3,0],"domain":null',
    '"sub":"sam","nested":{"a":[{"b":"]}\\""}]},"roles":["editor"]',
    '"sub":"sam","roles":["' + '","'.join(f"r{number}" for number in range(100)) + '"]',
    '"sub":"sam","x":"padded-","roles":["editor"]',
    '"sub":"sam","x":"padded--","roles":["editor"]',
]
AMBIGUOUS = [
    '"sub":"sam","sub":"root"',
    r'"sub":"sam","s\u0075b":"root"',
    r'"sub":"\ud83d"',
    r'"sub":"\ude00\ud83d"',
    '"sub":"sam","deep":' + "[" * 60 + "]" * 60,
    '"sub":"sam","sub2":}',
    '"sub":"sam",',
    '"sub":"sam"}{"sub":"root"',
    '"sub":"sam","n":0x10',
    '"sub":"sam\x01"',
    r'"sub":"\x73am"',
]


def spelled(rest: str) -> str:
    """A payload that is in force, with the rest of it spelled so."""
    now = int(time.time())
    return f'{{"iss":"{ISSUER}","aud":"llmesh","iat":{now},"exp":{now + 600},{rest}}}'


def signed(payload: str) -> str:
    return jws.serialize_compact({"alg": "ES256", "kid": "one"}, payload.encode(), KEY)


async def test_claims_make_the_same_caller_however_they_are_spelled(running: Mesh) -> None:
    for rest in READABLE:
        payload = spelled(rest)
        seen = (await running.call(GET, bearer(signed(payload)))).seen
        made = tuple(seen.get(f"x-llmesh-{name}", "") for name in ("subject", "roles", "domain"))
        expected = derive(CORP, json.loads(payload))
        assert made == (expected.subject, ",".join(expected.roles), expected.domain), rest


async def test_claims_that_can_be_read_in_two_ways_make_nobody(running: Mesh) -> None:
    answers = {rest: await running.call(GET, bearer(signed(spelled(rest)))) for rest in AMBIGUOUS}

    assert {rest: answer.code for rest, answer in answers.items() if answer.code not in REFUSED} == {}


async def test_no_caller_can_say_what_the_verified_claims_are(running: Mesh) -> None:
    theirs = token(sub="root", roles=["owner"]).split(".")[1]
    forged = (("x-llmesh-payload-corp", theirs), ("x_llmesh_payload_corp", theirs))

    seen = (await running.call(GET, (*bearer(token(roles=["reader"])), *forged))).seen
    assert (seen["x-llmesh-subject"], seen["x-llmesh-roles"]) == ("sam", "reader")
    assert not [name for name in seen if "payload" in name]

    assert (await running.call(GET, forged)).code is grpc.StatusCode.UNAUTHENTICATED
