"""An issuer's keys change while its callers call: no call fails, and what a removed key signed is refused."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from joserfc import jwt
from joserfc.jwk import ECKey

from llmesh.cli.gateway import ask_gateway
from llmesh.home import write_atomically
from tests.e2e.mesh import ECHO, RunningMesh, running_mesh
from tests.e2e.traffic import Traffic
from tests.eventually import eventually
from tests.key_site import KeySite, key_site

if TYPE_CHECKING:
    from acme.testing.v1.echo_pb2_grpc import EchoAsyncStub

CORP = """
  - name: corp
    issuer: https://corp.example
    jwks: corp.jwks.json
    audiences: [llmesh]
    algorithms: [ES256]
    max_lifetime_s: 3600
"""


def key_of(name: str) -> ECKey:
    return ECKey.generate_key("P-256", parameters={"kid": name, "alg": "ES256", "use": "sig"})


OLD, NEW = key_of("old"), key_of("new")


def signed_in(key: ECKey) -> tuple[tuple[str, str], ...]:
    now = int(time.time())
    claims = {"iss": "https://corp.example", "aud": "llmesh", "sub": "sam", "iat": now, "exp": now + 600}
    return (("authorization", f"Bearer {jwt.encode({'alg': 'ES256', 'kid': key.kid}, claims, key)}"),)


def jwks_of(*keys: ECKey) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def publish(mesh: RunningMesh, *keys: ECKey) -> None:
    write_atomically(mesh.folder / "policies/corp.jwks.json", jwks_of(*keys))


async def code_of(echo: EchoAsyncStub, key: ECKey) -> grpc.StatusCode:
    """What a call ends with whose token a key has signed."""
    try:
        await echo.Unary(pb.UnaryRequest(text="a"), metadata=signed_in(key))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def mesh() -> Generator[RunningMesh]:
    with running_mesh(start=False) as made:
        with (made.folder / "policies/issuers.yaml").open("a") as issuers:
            issuers.write(CORP)
        publish(made, OLD)
        made.start_gateway()
        made.start_envoy()
        made.start_echo()
        made.wait_ready(ECHO)
        yield made


async def test_keys_are_rotated_without_a_failed_call(mesh: RunningMesh) -> None:
    async with grpc.aio.insecure_channel(mesh.address) as channel:
        echo = EchoStub(channel)

        async def is_answered(key: ECKey, code: grpc.StatusCode) -> None:
            assert await code_of(echo, key) is code

        before, after = signed_in(OLD), signed_in(NEW)
        bearer = [before]
        await is_answered(NEW, grpc.StatusCode.UNAUTHENTICATED)
        async with Traffic(lambda: echo.Unary(pb.UnaryRequest(text="a"), metadata=bearer[0])) as traffic:
            publish(mesh, OLD, NEW)
            await eventually(lambda: is_answered(NEW, grpc.StatusCode.OK), within_s=30)
            bearer[0] = after
            await traffic.more(20)
            publish(mesh, NEW)
            await eventually(lambda: is_answered(OLD, grpc.StatusCode.UNAUTHENTICATED), within_s=30)
            await traffic.more(20)
        assert traffic.failures == {}

        # One that was believed a moment ago, as Envoy well remembers.
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await echo.Unary(pb.UnaryRequest(text="a"), metadata=before)
        assert (refused.value.details() or "").startswith("the token's issuer has no key with its `kid` and `alg`")


async def test_keys_that_cannot_be_used_leave_those_before_in_force(mesh: RunningMesh) -> None:
    publish(mesh, NEW)
    private = json.dumps({"keys": [key_of("next").as_dict(private=True)]})
    write_atomically(mesh.folder / "policies/corp.jwks.json", private.encode())

    async def told() -> None:
        path = mesh.home.state / "policy_error.txt"
        assert path.exists()
        assert "holds a private or shared key" in path.read_text()

    await eventually(told, within_s=30)
    async with grpc.aio.insecure_channel(mesh.address) as channel:
        await EchoStub(channel).Unary(pb.UnaryRequest(text="a"), metadata=signed_in(NEW))
    publish(mesh, NEW)


@pytest.fixture
def published() -> Generator[tuple[KeySite, RunningMesh]]:
    """A mesh with an issuer that publishes its keys, and where it does."""
    with key_site(jwks_of(OLD)) as site, running_mesh(start=False) as made:
        with (made.folder / "policies/issuers.yaml").open("a") as issuers:
            issuers.write(CORP.replace("corp.jwks.json", site.url) + "    refresh_s: 1\n")
        made.start_gateway()
        made.start_envoy()
        made.start_echo()
        made.wait_ready(ECHO)
        yield site, made


async def test_keys_at_a_url_are_rotated_and_outlive_it_without_a_failed_call(
    published: tuple[KeySite, RunningMesh],
) -> None:
    site, mesh = published
    async with grpc.aio.insecure_channel(mesh.address) as channel:
        echo, bearer = EchoStub(channel), [signed_in(OLD)]

        async def is_answered(key: ECKey, code: grpc.StatusCode) -> None:
            assert await code_of(echo, key) is code

        async def is_told() -> None:
            told = ask_gateway(mesh.home)
            assert told is not None
            [words] = told.read().policy.stale_keys or [""]
            assert words.endswith(f"{site.url}: it answers 503, expected 200 without a redirect")

        async with Traffic(lambda: echo.Unary(pb.UnaryRequest(text="a"), metadata=bearer[0])) as traffic:
            site.body = jwks_of(OLD, NEW)
            await eventually(lambda: is_answered(NEW, grpc.StatusCode.OK), within_s=30)
            bearer[0] = signed_in(NEW)
            await traffic.more(20)
            site.body = jwks_of(NEW)
            await eventually(lambda: is_answered(OLD, grpc.StatusCode.UNAUTHENTICATED), within_s=30)

            site.code = 503
            await eventually(is_told, within_s=30)
            [gateway] = [each for each in mesh.processes if each.name == "gateway"]
            await asyncio.to_thread(gateway.stop)
            mesh.start_gateway()
            await eventually(is_told, within_s=60)
            await traffic.more(20)
        assert traffic.failures == {}
