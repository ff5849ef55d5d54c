"""A tool on TCP answers the gateway alone, and believes nobody else's headers."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import Mock

import grpc
import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub
from echo_tool.service import EchoServicer
from grpc_health.v1 import health_pb2, health_pb2_grpc  # pyright: ignore[reportMissingTypeStubs]: it ships none

import llmesh
from llmesh import certificates
from llmesh.certificates import GATEWAY
from tests.eventually import eventually
from tests.pki import Authority, Issued, gateway

if TYPE_CHECKING:
    from acme.testing.v1.echo_pb2_grpc import EchoAsyncStub

TOOL = "echo.tools.example"
ADA = (("x-llmesh-subject", "ada"), ("x-llmesh-roles", "owner"))
AUTHORITY, OTHER = Authority(), Authority("other")
GONE = timedelta(minutes=-1)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tls-") as name:
        yield Path(name)


def written(folder: Path, issued: Issued, authority: Authority = AUTHORITY) -> llmesh.Tls:
    """The files of a tool, new or in the place of others."""
    certificate, key = issued.write(folder)
    return llmesh.Tls(certificate, key, authority.write(folder))


@asynccontextmanager
async def serving(folder: Path) -> AsyncGenerator[str]:
    async with llmesh.Server(EchoServicer(), address="127.0.0.1:0", tls=written(folder, AUTHORITY.issue(TOOL))) as tool:
        yield tool.address


@asynccontextmanager
async def connected(
    address: str, shown: Issued | None, believed: Authority = AUTHORITY
) -> AsyncGenerator[EchoAsyncStub]:
    """A stub of its own connection. shown: the client's certificate."""
    key, chain = (shown.key, shown.certificate) if shown else (None, None)
    credentials = grpc.ssl_channel_credentials(believed.pem, key, chain)
    options = (("grpc.ssl_target_name_override", TOOL), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        yield EchoStub(channel)


async def who(stub: EchoAsyncStub) -> str:
    return (await stub.WhoAmI(pb.WhoAmIRequest(), metadata=ADA, timeout=60)).subject


async def test_the_gateway_is_believed_in_calls_of_every_shape(folder: Path) -> None:
    async with serving(folder) as address, connected(address, gateway(AUTHORITY)) as stub:
        assert await who(stub) == "ada"
        spoken = [answer.text async for answer in stub.Bidi(_said(), metadata=ADA, timeout=60)]
        assert spoken == ["one"]


async def _said() -> AsyncIterator[pb.BidiRequest]:
    yield pb.BidiRequest(text="one")


@pytest.mark.parametrize(
    "shown",
    [
        AUTHORITY.issue("other.tools.example"),
        AUTHORITY.issue("gateway"),
        AUTHORITY.issue("llmesh", "llmesh://gateway.example", "llmesh://tool"),
        AUTHORITY.issue(),
    ],
    ids=["another tool", "a host named gateway", "uris like the gateway's", "nobody"],
)
async def test_a_certificate_of_the_authority_that_is_not_the_gateways_is_refused_each_call(
    folder: Path, shown: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(folder) as address, connected(address, shown) as stub:
        with pytest.raises(grpc.aio.AioRpcError, match="gateway alone") as refused:
            await who(stub)
        with pytest.raises(grpc.aio.AioRpcError, match="gateway alone"):
            _ = [answer async for answer in stub.Bidi(_said(), metadata=ADA, timeout=60)]
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not [record for record in caplog.records if record.message == "call answered"]


async def test_reflection_health_and_unknown_methods_are_for_the_gateway_alone_too(folder: Path) -> None:
    key, chain = (shown := AUTHORITY.issue("other.tools.example")).key, shown.certificate
    options = (("grpc.ssl_target_name_override", TOOL),)
    async with (
        serving(folder) as address,
        grpc.aio.secure_channel(
            address, grpc.ssl_channel_credentials(AUTHORITY.pem, key, chain), options=options
        ) as channel,
    ):
        health = cast("Any", health_pb2_grpc.HealthStub(cast("Any", channel)))
        stub = cast("Any", channel)
        for call in (
            health.Check(health_pb2.HealthCheckRequest(), timeout=60),
            stub.unary_unary("/acme.testing.v1.Echo/Nothing")(b"", timeout=60),
            stub.unary_unary("/grpc.reflection.v1.ServerReflection/Nothing")(b"", timeout=60),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="gateway alone") as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "shown",
    [None, gateway(OTHER), gateway(AUTHORITY, lasts=GONE)],
    ids=["no certificate", "of another authority", "expired"],
)
async def test_who_cannot_show_a_certificate_in_force_gets_no_connection(folder: Path, shown: Issued | None) -> None:
    async with serving(folder) as address, connected(address, shown) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await who(stub)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        async with connected(address, gateway(AUTHORITY)) as good:
            assert await who(good) == "ada"


async def test_plaintext_gets_no_answer(folder: Path) -> None:
    async with serving(folder) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await who(EchoStub(channel))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_new_files_are_shown_to_the_next_connection_and_broken_ones_to_none(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(folder) as address, connected(address, gateway(AUTHORITY)) as old:
        assert await who(old) == "ada"
        (folder / "own.key").write_bytes(OTHER.issue(TOOL).key)
        async with connected(address, gateway(AUTHORITY)) as stub:
            assert await who(stub) == "ada"
        assert any(
            "is not the key of the certificate" in str(record.__dict__.get("error")) for record in caplog.records
        )
        written(folder, OTHER.issue(TOOL), OTHER)
        async with connected(address, gateway(OTHER), OTHER) as new:
            assert await who(new) == "ada"
        async with connected(address, gateway(AUTHORITY)) as late:
            with pytest.raises(grpc.aio.AioRpcError):
                await who(late)
        assert await who(old) == "ada"


async def test_what_was_refused_for_a_passing_reason_is_taken_up_once_that_has_passed_and_told_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(folder) as address:
        with monkeypatch.context() as patch:
            early = datetime.now(UTC) - timedelta(days=30)
            patch.setattr(certificates, "datetime", Mock(now=Mock(return_value=early)))
            written(folder, OTHER.issue(TOOL), OTHER)
            for _ in range(2):
                async with connected(address, gateway(AUTHORITY)) as stub:
                    assert await who(stub) == "ada"
        assert [record.message for record in caplog.records].count("certificates refused") == 1
        async with connected(address, gateway(OTHER), OTHER) as stub:
            assert await who(stub) == "ada"


async def test_no_call_fails_while_certificates_are_replaced(folder: Path) -> None:
    shown, going = gateway(AUTHORITY), True
    failed: list[grpc.aio.AioRpcError] = []
    count = 0

    async def connect_and_call() -> None:
        nonlocal count
        while going:
            async with connected(address, shown) as stub:
                try:
                    await who(stub)
                except grpc.aio.AioRpcError as err:
                    failed.append(err)
                count += 1

    async def more(than: int) -> None:
        assert count > than

    async with serving(folder) as address, asyncio.TaskGroup() as tasks:
        tasks.create_task(connect_and_call())
        for _ in range(5):
            written(folder, AUTHORITY.issue(TOOL))
            await eventually(lambda seen=count: more(seen + 3))
        going = False
    assert not failed


@pytest.mark.parametrize(
    ("file", "taken", "says"),
    [
        ("certificate", "absent", "`absent` cannot be read"),
        ("authority", "key", "holds no certificate"),
        ("key", "certificate", "holds no private key"),
    ],
    ids=["missing", "no authority", "no key"],
)
def test_files_that_cannot_be_used_end_the_start_with_their_names(
    folder: Path, file: str, taken: str, says: str
) -> None:
    certificate, key = AUTHORITY.issue(TOOL).write(folder)
    files = {"certificate": certificate, "key": key, "authority": AUTHORITY.write(folder)}
    files[file] = files.get(taken, Path(taken))
    with pytest.raises(llmesh.ServeError, match=says):
        asyncio.run(llmesh.Server(EchoServicer(), address="127.0.0.1:0", tls=llmesh.Tls(**files)).start())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"address": "127.0.0.1:0", "insecure_dev": True}, "not `insecure_dev`"),
        ({"address": "127.0.0.1:0", "home": "h"}, "takes no lease"),
        ({"address": "unix:/nowhere/tool.sock"}, "a Unix socket needs none"),
        ({}, "a Unix socket needs none"),
    ],
    ids=["insecure", "lease", "socket", "own socket"],
)
def test_what_tls_cannot_go_with_is_told(settings: dict[str, object], says: str) -> None:
    with pytest.raises(llmesh.ServeError, match=says):
        llmesh.Server(EchoServicer(), tls=llmesh.Tls("c", "k", "a"), **settings)  # pyright: ignore[reportArgumentType]: a table


async def test_a_key_that_others_may_read_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = written(folder, AUTHORITY.issue(TOOL))
    Path(files.key).chmod(0o644)
    with caplog.at_level(logging.WARNING):
        async with llmesh.Server(EchoServicer(), address="127.0.0.1:0", tls=files):
            pass
    assert [record.message for record in caplog.records] == ["private key can be read by others: set its mode to 600"]


def test_a_key_is_in_no_text_of_ours(folder: Path) -> None:
    from llmesh.certificates import read_pair

    issued = gateway(AUTHORITY)
    pair = read_pair(*issued.write(folder))
    assert GATEWAY in pair.uris
    assert "PRIVATE" not in repr(pair)
