"""What whoever steals, forges or stretches a delegation gets for it: nothing, and a reason."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncGenerator

import grpc
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from gateway.bearing import Bearing
from gateway.blocks.words import Target
from gateway.snapshot.build import blocking, build, residues
from governance.delegation import Delegation, tool_itself
from governance.words import Caller
from tests.envoy import KEY, KEYS, Mesh, bearer, token
from tests.gateway.blocks.world import block, caller, domain, method, tool
from tests.gateway.xds.delegation import A, B, C, carrying, delegated, minted, three_tools

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
GET = f"/{C}/Get"


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with three_tools() as made:
        yield made


def unsigned(text: str, alg: str) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": alg, "kid": KEYS.signing().kid}).encode()).decode().rstrip("=")
    return f"{head}.{text.split('.')[1]}."


def claims() -> dict[str, object]:
    ends = int(time.time()) + 60
    return Delegation(Caller("corp", "root", ("owner",)), (f"/{A}/Ask",), (GET,), "parent", ends).claims()


def forged() -> dict[str, str]:
    """Tokens that are not the gateway's, or no longer, by what is wrong with them."""
    good, now = minted(), int(time.time())
    public = json.dumps(KEY.as_dict(private=False)).encode()
    return {
        "alg none": unsigned(good, "none"),
        "alg NONE": unsigned(good, "NONE"),
        "no signature": unsigned(good, "HS256"),
        "another payload": ".".join([good.split(".")[0], minted(sub="root").split(".")[1], good.split(".")[2]]),
        "a key of one's own": minted(key=OctKey.generate_key(256, {"kid": str(KEYS.signing().kid), "alg": "HS256"})),
        "a user's key": jwt.encode({"alg": "ES256", "kid": "one"}, claims(), KEY),
        "a user's key with our kid": jwt.encode({"alg": "ES256", "kid": str(KEYS.signing().kid)}, claims(), KEY),
        "a key of the curve": jwt.encode({"alg": "ES256"}, claims(), ECKey.generate_key("P-256")),
        "a public key as the secret": minted(key=OctKey.import_key(public, {"kid": "one", "alg": "HS256"})),
        "expired": minted(exp=now - 3),
        "without an end": minted(exp=...),
        "for another audience": minted(aud="other"),
        "for none": minted(aud=...),
        "by another issuer": minted(iss="https://corp.example"),
        "empty": "",
        "no token": "x",
        "a user's token": token(),
        "twice": f"{good},{good}",
    }


async def test_what_the_gateway_did_not_mint_is_refused_even_beside_a_good_token(running: Mesh) -> None:
    answers = {
        (name, bool(beside)): await running.call(GET, (*carrying(text), *beside))
        for name, text in forged().items()
        for beside in ((), bearer(token()))
    }

    assert {case: answer.code for case, answer in answers.items() if answer.code is not UNAUTHENTICATED} == {}
    assert all("; send `llmesh-delegation` as it came" in answer.message for answer in answers.values())
    assert not running.backend.calls


async def test_a_delegation_counts_in_its_own_header_alone(running: Mesh) -> None:
    text = minted()
    payload = text.split(".")[1]

    for sent in (bearer(text), (("x-llmesh-delegated", payload),), (("llmesh_delegation", text),)):
        assert (await running.call(GET, sent)).code is UNAUTHENTICATED


async def test_a_stolen_token_gives_no_right_of_the_thiefs_to_it_nor_the_other_way(running: Mesh) -> None:
    stolen = await delegated(running, f"/{A}/Ask", bearer(token(sub="sam", roles=["reader"])))
    thief = bearer(token(sub="thief", roles=["owner"]))

    seen = (await running.call(GET, (*carrying(stolen), *thief))).seen
    assert (seen["x-llmesh-subject"], seen["x-llmesh-roles"], seen["x-llmesh-actor"]) == ("sam", "reader", A)
    assert "authorization" not in seen
    assert (await running.call(f"/{C}/Other", (*carrying(stolen), *thief))).info.reason == "NOT_DELEGATED"


async def test_no_caller_says_who_acts_for_whom(running: Mesh) -> None:
    claimed = {"path": [f"/{A}/Ask"], "methods": [GET], "parent": "p", "act": {"sub": A}, "actor": A, "issuer": "dev"}
    headers = (("x-llmesh-actor", A), ("x-llmesh-parent", "mine"), ("x-llmesh-mesh", "10.0.0.1:1"))

    seen = (await running.call(GET, (*bearer(token(claimed)), *headers))).seen

    assert (seen["x-llmesh-issuer"], seen["x-llmesh-actor"]) == ("corp", "")
    assert not {"x-llmesh-parent", "x-llmesh-mesh"} & seen.keys()


async def test_a_tool_that_acts_gets_no_token_for_more_than_it_was_given(running: Mesh) -> None:
    first = await delegated(running, f"/{A}/Ask", bearer(token(roles=["reader"])))
    forged_chain = (("x-llmesh-path", f"/{C}/Get"), ("x-llmesh-roles", "owner"), ("grpc-timeout", "8H"))

    seen = (await running.call(f"/{B}/Ask", (*carrying(first), *forged_chain))).seen
    given = (await running.call(GET, carrying(seen["llmesh-delegation"]))).seen

    assert (given["x-llmesh-roles"], given["x-llmesh-actor"]) == ("reader", B)
    assert given["x-llmesh-parent"] == seen["x-llmesh-call-id"]


@pytest.mark.parametrize(
    "target",
    [caller("sam"), tool(B), method(f"{B}/Ask"), tool(A), method(f"{A}/Ask"), domain("support")],
    ids=["the caller", "the tool that acts", "its method", "a tool further up", "its method too", "their domain"],
)
async def test_a_stolen_token_is_useless_past_a_block(running: Mesh, target: Target) -> None:
    assert running.served
    of_a = await delegated(running, f"/{A}/Ask")
    of_b = await delegated(running, f"/{B}/Ask", carrying(of_a))
    assert (await running.call(f"/{C}/Get", carrying(of_b))).code is grpc.StatusCode.OK
    tools, policy = running.served
    resources, bearing = build(tools, policy), Bearing(lambda tool: residues(tool, policy.bundle))

    for blocked in ({target: block(target)}, {}):
        in_force = bearing.resource(blocked, tools, {"acme.support": "support"})
        await running.publish_resources(blocking(resources, in_force))
        # As often as the thief likes, and for whatever the token was good.
        answers = [await running.call(f"/{C}/Get", carrying(of_b)) for _ in range(2)]
        answers.append(await running.call(f"/{C}/Get", carrying(of_a)))
        stopped = [answer.info.reason == "BLOCKED" for answer in answers]
        above = target in (caller("sam"), tool(A), method(f"{A}/Ask"), domain("support"))
        assert stopped == ([True, True, above] if blocked else [False] * 3)


def own(*methods: str, service: str = A, lasts_s: int = 60) -> str:
    """What a tool calls by in its own right."""
    ends = int(time.time()) + lasts_s
    return minted(Delegation(tool_itself(service, "support"), (), methods, "", ends))


def expiry(text: str) -> int:
    return json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))["exp"]


async def test_a_tool_in_its_own_right_calls_as_itself_and_nobody_acts_for_it(running: Mesh) -> None:
    seen = (await running.call(GET, (*carrying(own(GET)), *bearer(token(roles=["owner"]))))).seen

    derived = ("issuer", "subject", "roles", "domain", "clearances", "actor", "parent")
    assert {name: seen.get(f"x-llmesh-{name}") for name in derived} == {
        **dict.fromkeys(derived, ""),
        "issuer": "llmesh",
        "subject": A,
        "domain": "support",
    }
    assert not {"llmesh-delegation", "authorization"} & seen.keys()


async def test_a_token_of_a_tools_own_is_good_for_what_it_uses_and_until_it_ends(running: Mesh) -> None:
    listed = await running.call(GET, carrying(own(GET)))
    unlisted = await running.call(f"/{C}/Other", carrying(own(GET)))
    ended = await running.call(GET, carrying(own(GET, lasts_s=-3)))

    assert listed.code is grpc.StatusCode.OK
    assert unlisted.info.reason == "NOT_DELEGATED"
    assert unlisted.message.startswith(f"{A} may not call {C}/Other in its own right")
    assert (ended.code, ended.info.reason) == (UNAUTHENTICATED, "TOKEN_EXPIRED")


async def test_what_a_tool_in_its_own_right_calls_hands_on_nothing_that_lasts_longer(running: Mesh) -> None:
    given = own(f"/{B}/Ask", lasts_s=20)
    handed_on = await delegated(running, f"/{B}/Ask", carrying(given))

    assert expiry(handed_on) == expiry(given)
    seen = (await running.call(GET, carrying(handed_on))).seen
    assert (seen["x-llmesh-issuer"], seen["x-llmesh-subject"], seen["x-llmesh-actor"]) == ("llmesh", A, B)


@pytest.mark.parametrize(
    ("target", "stops"),
    [
        (tool(A), True),
        (domain("support"), True),
        (caller(A, "llmesh"), True),
        (tool(f"{A}A"), False),
        (method(f"{A}/Ask"), False),
        (caller(A, "corp"), False),
        (domain("other"), False),
    ],
    ids=str,
)
async def test_what_is_blocked_calls_nobody_in_its_own_right(running: Mesh, target: Target, stops: bool) -> None:  # noqa: FBT001
    assert running.served
    tools, policy = running.served
    resources, bearing = build(tools, policy), Bearing(lambda tool: residues(tool, policy.bundle))
    packages = {"acme.support": "support", "acme.other": "other"}
    in_force = bearing.resource({target: block(target)}, tools, packages)
    itself, handed_on = own(GET), await delegated(running, f"/{B}/Ask", carrying(own(f"/{B}/Ask")))

    await running.publish_resources(blocking(resources, in_force))
    answers = [await running.call(GET, carrying(text)) for text in (itself, handed_on)]

    assert [answer.info.reason == "BLOCKED" for answer in answers] == [stops, stops]
    assert not any("calls for you" in answer.message for answer in answers) or target == domain("support")


async def test_no_caller_says_which_tool_it_is(running: Mesh) -> None:
    forged = (("x-llmesh-acting-0", f"/{A}/"), ("x-llmesh-issuer", "llmesh"), ("x-llmesh-subject", A))

    seen = (await running.call(GET, (*bearer(token()), *forged))).seen

    assert (seen["x-llmesh-issuer"], seen["x-llmesh-subject"]) == ("corp", "sam")
    assert "x-llmesh-acting-0" not in seen
