"""A caller that the script knows by a token is believed with that token alone, each time it is verified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from joserfc.jwk import ECKey

from tests.e2e.raw import Answer, RawConnection, frame
from tests.envoy import Mesh, bearer, mesh, policy_of, token

SERVICE = "acme.support.v1.Tickets"
GET = f"/{SERVICE}/Get"
UNAUTHENTICATED = "16"
OTHER_KEY = ECKey.generate_key("P-256", parameters={"kid": "one", "alg": "ES256", "use": "sig"})
OTHER_JWKS = json.dumps({"keys": [OTHER_KEY.as_dict(private=False)]})


@pytest.fixture
async def running() -> AsyncGenerator[Mesh]:
    async with mesh() as made:
        await made.publish(made.tool(SERVICE))
        yield made


async def shown(running: Mesh, *tokens: str) -> Answer:
    """A call that shows several tokens, each in a header of its own."""

    def made() -> Answer:
        with RawConnection(running.port) as connection:
            return connection.call(GET, *(field for text in tokens for field in bearer(text)), body=frame(b""))

    return await asyncio.to_thread(made)


async def subject_of(running: Mesh, text: str) -> str:
    return (await running.call(GET, bearer(text))).seen["x-llmesh-subject"]


async def test_each_token_makes_its_own_caller_each_time(running: Mesh) -> None:
    tokens = {name: token(sub=name, roles=[name]) for name in ("sam", "ada", "max")}

    for _ in range(2):
        for name, text in tokens.items():
            seen = (await running.call(GET, bearer(text))).seen
            assert (seen["x-llmesh-subject"], seen["x-llmesh-roles"]) == (name, name)


async def test_a_caller_that_is_known_is_nobody_beside_another_token(running: Mesh) -> None:
    known, other = token(sub="known"), token(sub="other")
    assert await subject_of(running, known) == "known"
    assert await subject_of(running, other) == "other"

    forged = token(sub="forged", key=OTHER_KEY)
    for both in ((known, forged), (forged, known), (f"{known},Bearer {forged}",), (f"{forged},Bearer {known}",)):
        assert (await shown(running, *both)).get("grpc-status") == UNAUTHENTICATED


async def test_a_token_that_is_no_longer_believed_makes_nobody_though_it_is_known(running: Mesh) -> None:
    known = token(sub="known")
    assert await subject_of(running, known) == "known"

    await running.publish(running.tool(SERVICE), policy=replace(policy_of(), keys={"corp": OTHER_JWKS}))

    own = token(sub="own", key=OTHER_KEY)
    assert await subject_of(running, own) == "own"
    for tokens in ((known,), (known, own), (own, known)):
        assert (await shown(running, *tokens)).get("grpc-status") == UNAUTHENTICATED
