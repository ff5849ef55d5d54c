"""The mesh file limits how often a caller calls: the SDK raises OverQuota, others call on, and the figures tell."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Generator

import pytest
from acme.testing.v1 import echo_pb2 as pb
from acme.testing.v1.echo_pb2_grpc import EchoStub

from llmesh import Mesh, OverQuota
from tests.e2e.mesh import ECHO, OWNER, READER, RunningMesh, free_port, running_mesh
from tests.eventually import eventually

# More than a quota of 2 in a second lets through, as long as they take less than half a minute.
CALLS = 60
COUNTED = re.compile(r"^envoy_quota_low_http_local_rate_limit_rate_limited\{\} (\d+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def mesh() -> Generator[RunningMesh]:
    operations = f"127.0.0.1:{free_port()}"
    with running_mesh(operations=operations, limits={"calls_per_s": 1000, "quotas": {"low": 2}}) as made:
        made.start_echo()
        made.wait_ready(ECHO)
        yield made


async def test_a_caller_over_a_quota_reads_which_and_others_call_on(mesh: RunningMesh) -> None:
    async with Mesh(mesh.address, mesh.token(READER)) as busy, Mesh(mesh.address, mesh.token(OWNER)) as other:
        calls = (EchoStub(busy.channel).Unary(pb.UnaryRequest(text="a")) for _ in range(CALLS))
        found = await asyncio.gather(*calls, return_exceptions=True)
        answer = await EchoStub(other.channel).Unary(pb.UnaryRequest(text="a"))

    refused = [each for each in found if isinstance(each, OverQuota)]
    assert {(each.quota, each.retry_after_s, each.reason) for each in refused} == {("low", 1.0, "OVER_QUOTA")}
    assert [each for each in found if isinstance(each, BaseException) and not isinstance(each, OverQuota)] == []
    assert len(found) > len(refused)
    assert answer.text == "a"

    async def told() -> None:
        url = f"http://{mesh.settings['operations']}/metrics"
        with await asyncio.to_thread(urllib.request.urlopen, url) as page:
            text = page.read().decode()
        counted = COUNTED.search(text)
        # Those of whoever asked the catalog often, until the tool was there, count too.
        assert counted is not None
        assert int(counted[1]) >= len(refused)

    await eventually(told, within_s=30)
