"""Tools that call each other, for tests: A asks B, which asks A and C; C asks nobody."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
from joserfc import jwt
from joserfc.jwk import OctKey

from gateway.catalog import Method
from governance.bundle import parse_bundle
from governance.delegation import Delegation
from governance.words import Caller
from llmesh.api.options.v1 import options_pb2 as options
from tests.envoy import KEYS, Mesh, Metadata, mesh, method_of, policy_of
from tests.governance.rules import mesh as mesh_file
from tests.governance.rules import rule

A, B, C = (f"acme.support.v1.{name}" for name in "ABC")
ALL = policy_of(parse_bundle(mesh_file(rule("all", "permit", "caller.domain != 'blocked'")), {}))


def using(name: str, *uses: str) -> Method:
    """A method that uses others."""
    return method_of(name, options=options.Method(uses=uses))


@asynccontextmanager
async def three_tools() -> AsyncGenerator[Mesh]:
    """All that are signed in may call everything."""
    async with mesh() as made:
        await made.publish(
            made.tool(A, using("Ask", f"{B}/Ask", f"{C}/Get"), method_of("Get")),
            made.tool(B, using("Ask", f"{A}/Ask", f"{C}/Get")),
            made.tool(C, method_of("Get"), method_of("Other")),
            policy=ALL,
        )
        yield made


async def delegated(running: Mesh, path: str, metadata: Metadata | None = None) -> str:
    """The token that a tool is given with a call."""
    answer = await running.call(path, metadata)
    assert answer.code is grpc.StatusCode.OK, answer
    return answer.seen["llmesh-delegation"]


def carrying(token: str) -> Metadata:
    """A token as its tool sends it."""
    return (("llmesh-delegation", token),)


def minted(
    delegation: Delegation | None = None,
    *,
    key: OctKey | None = None,
    **changed: object,
) -> str:
    """A token as the gateway mints it, with claims changed; by default A's, for sam, to call C/Get."""
    usual = Delegation(Caller("corp", "sam"), (f"/{A}/Ask",), (f"/{C}/Get",), "parent", int(time.time()) + 60)
    claims = {**(delegation or usual).claims(), **changed}
    signing = key or KEYS.signing()
    kept = {name: value for name, value in claims.items() if value is not ...}
    return jwt.encode({"alg": "HS256", "kid": signing.kid}, kept, signing)
