"""How often a caller may call, with the real Envoy: whom a bucket is for, what fills it, and what empties it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any as Untyped

import grpc
import pytest
from google.rpc import error_details_pb2  # pyright: ignore[reportMissingTypeStubs]

from gateway.catalog import Method
from gateway.listener import quotas
from gateway.listener.bootstrap import Edge, bootstrap
from gateway.snapshot.build import ROUTES, build
from gateway.xds.messages import message_type
from governance.bundle import parse_bundle
from governance.issuers import parse_issuers
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.mesh_file import LimitSettings, QuotaSettings
from tests.envoy import ISSUERS, Mesh, Metadata, bearer, call, mesh, method_of, policy_of, token, tool_of
from tests.governance.rules import domain, rule
from tests.governance.rules import mesh as mesh_file

SERVICE, OTHER, SECRET = "acme.support.v1.Tickets", "acme.support.v1.Notes", "acme.support.v1.Secret"
OK, EXHAUSTED, UNIMPLEMENTED = "OK", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"
GET, THINK = f"/{SERVICE}/Get", f"/{SERVICE}/Think"
BOTH = ISSUERS + ISSUERS.split("issuers:\n")[1].replace("corp", "partner")
PARTNER = "https://partner.example"
BUNDLE = parse_bundle(
    mesh_file(rule("reads", "permit", applies="{effects: [read]}")),
    domain("support", rule("personal", "forbid", "'pii' in tool.data_classes && !('pii' in caller.clearances)")),
)


@pytest.fixture(autouse=True)
def slow_to_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is used up stays so for as long as a test takes, however slow the machine.
    monkeypatch.setattr(quotas, "FILL_S", 3600)


def costing(name: str, cost: options.Cost.ValueType) -> Method:
    return method_of(name, options=options.Method(cost=cost))


@asynccontextmanager
async def limited(*, calls: int = 0, workers: int = 1, **classes: int) -> AsyncGenerator[Mesh]:
    limits = LimitSettings(calls_per_s=calls, quotas=QuotaSettings(**classes))
    async with mesh(limits=limits, workers=workers) as running:
        await running.publish(
            running.tool(SERVICE, costing("Get", options.COST_LOW), costing("Think", options.COST_HIGH)),
            running.tool(OTHER, costing("Get", options.COST_MEDIUM), method_of("Unstated")),
            running.tool(SECRET, method_of("Get", data_classes=("pii",)), hidden=True),
            policy=policy_of(BUNDLE, parse_issuers(BOTH)),
            quotas=quotas.stated(limits),
        )
        yield running


async def codes(running: Mesh, path: str, count: int, metadata: Metadata | None = None) -> dict[str, int]:
    """What becomes of so many calls, one after another."""
    return Counter([(await running.call(path, metadata)).code.name for _ in range(count)])


async def test_a_caller_who_calls_too_often_is_told_the_quota_and_when_to_try_again() -> None:
    async with limited(calls=3) as running:
        assert await codes(running, GET, 3) == {OK: 3}
        answer = await running.call(GET)

        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert answer.message == "more than 3 calls in a second (quota `calls`); try again in 1 s"
        assert answer.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
        assert [each.subject for each in answer.detail(error_details_pb2.QuotaFailure).violations] == ["calls"]
        assert (answer.info.reason, dict(answer.info.metadata)) == (
            "OVER_QUOTA",
            {"quota": "calls", "calls_per_s": "3"},
        )
        assert answer.metadata["x-llmesh-call-id"]
        assert running.backend.calls[GET] == 3


async def test_one_callers_calls_are_not_anothers() -> None:
    async with limited(calls=2) as running:
        assert await codes(running, GET, 3) == {OK: 2, EXHAUSTED: 1}

        assert await codes(running, GET, 2, bearer(token(sub="ada"))) == {OK: 2}
        assert await codes(running, GET, 2, bearer(token(iss=PARTNER))) == {OK: 2}, "the same subject, another issuer"
        # Neither is one put together from two that name it.
        assert await codes(running, GET, 2, bearer(token(sub="corp"))) == {OK: 2}


async def test_all_of_a_callers_tokens_and_connections_count_as_one() -> None:
    async with limited(calls=2) as running:
        for roles in (["a"], ["b"]):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as another:
                assert (await call(another, GET, bearer(token(roles=roles)))).code is grpc.StatusCode.OK

        assert (await running.call(GET)).code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_costs_more_has_a_quota_of_its_own() -> None:
    async with limited(low=3, medium=2, high=1) as running:
        assert await codes(running, THINK, 2) == {OK: 1, EXHAUSTED: 1}
        assert await codes(running, f"/{OTHER}/Get", 3) == {OK: 2, EXHAUSTED: 1}
        assert await codes(running, GET, 4) == {OK: 3, EXHAUSTED: 1}

        answer = await running.call(THINK)
        assert answer.message == "more than 1 calls in a second (quota `high`); try again in 1 s"
        assert [each.subject for each in answer.detail(error_details_pb2.QuotaFailure).violations] == ["high"]


async def test_tools_of_one_class_share_its_quota_and_what_states_no_cost_is_of_the_highest() -> None:
    async with limited(high=2) as running:
        assert await codes(running, THINK, 1) == {OK: 1}
        assert await codes(running, f"/{OTHER}/Unstated", 2) == {OK: 1, EXHAUSTED: 1}
        assert await codes(running, THINK, 1) == {EXHAUSTED: 1}

        assert await codes(running, GET, 5) == {OK: 5}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param((("x-llmesh-subject", "ada"),), id="another subject"),
        pytest.param((("x-llmesh-issuer", "other"), ("x-llmesh-subject", "ada")), id="another issuer"),
        pytest.param((("x_llmesh_subject", "ada"), ("x-llmesh_issuer", "other")), id="spelt with underscores"),
        pytest.param((("x-llmesh-subject", ""), ("x-llmesh-subject", "ada")), id="twice"),
        pytest.param((("x-llmesh-quota", "low"),), id="another quota"),
        pytest.param((("x-llmesh-payload-corp", token(sub="ada").split(".")[1]),), id="other claims"),
        pytest.param((("x-forwarded-for", "10.1.2.3"), ("x-request-id", "other")), id="from elsewhere"),
        pytest.param((("x-envoy-ratelimit", "off"), ("x-envoy-max-retries", "9")), id="a word to Envoy"),
    ],
)
async def test_no_header_finds_another_bucket(headers: Metadata) -> None:
    async with limited(calls=2, high=1) as running:
        assert await codes(running, THINK, 1) == {OK: 1}

        assert await codes(running, THINK, 1, (*bearer(token()), *headers)) == {EXHAUSTED: 1}
        assert await codes(running, GET, 2, (*bearer(token()), *headers)) == {EXHAUSTED: 2}


async def test_calls_that_are_refused_count_as_calls() -> None:
    async with limited(calls=3) as running:
        assert await codes(running, "/acme.nobody.v1.Nothing/Get", 4) == {UNIMPLEMENTED: 3, EXHAUSTED: 1}


async def test_a_hidden_tools_quota_does_not_tell_that_it_is_there() -> None:
    async with limited(high=1) as running:
        assert await codes(running, f"/{SECRET}/Get", 3) == {UNIMPLEMENTED: 3}

        cleared = bearer(token(sub="cleo", clearances=["pii"]))
        assert await codes(running, f"/{SECRET}/Get", 2, cleared) == {OK: 1, EXHAUSTED: 1}


def test_each_quota_has_room_for_fifty_thousand_callers() -> None:
    limits = LimitSettings.model_validate({"calls_per_s": 5, "quotas": {"low": 4, "high": 1}})
    filters = [*quotas.limit_calls(limits), *quotas.limit_classes(limits)]

    limit = message_type("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit")
    made: list[Untyped] = [limit.FromString(each["typed_config"]["value"]) for each in filters]

    assert [each.max_dynamic_descriptors.value for each in made] == [50_000] * 3


async def test_as_many_callers_as_there_is_room_for_empty_nobodys_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "CALLERS", 40)
    async with limited(calls=1) as running:
        assert await codes(running, GET, 2) == {OK: 1, EXHAUSTED: 1}
        for number in range(39):
            assert await codes(running, GET, 1, bearer(token(sub=f"caller-{number}"))) == {OK: 1}
        assert await codes(running, GET, 1) == {EXHAUSTED: 1}

        # One who goes on calling keeps the bucket, however many others come.
        for number in range(80):
            assert await codes(running, GET, 1, bearer(token(sub=f"newcomer-{number}"))) == {OK: 1}
            if number % 20 == 0:
                assert await codes(running, GET, 1) == {EXHAUSTED: 1}


async def test_tokens_that_are_not_believed_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "CALLERS", 2)
    async with limited(calls=1) as running:
        assert await codes(running, GET, 2) == {OK: 1, EXHAUSTED: 1}
        for number in range(10):
            forged = token(sub=f"nobody-{number}")[:-8] + "AAAAAAAA"
            assert await codes(running, GET, 1, bearer(forged)) == {"UNAUTHENTICATED": 1}
            late = token(sub=f"late-{number}", exp=1)
            assert await codes(running, GET, 1, bearer(late)) == {"UNAUTHENTICATED": 1}
        assert await codes(running, GET, 1, ()) == {"UNAUTHENTICATED": 1}

        assert await codes(running, GET, 1) == {EXHAUSTED: 1}


async def test_a_quota_holds_over_all_of_envoys_workers() -> None:
    async with limited(calls=50, workers=2) as running:

        async def on_a_connection_of_its_own() -> dict[str, int]:
            # Of its own: channels of one process share connections otherwise.
            options = (("grpc.use_local_subchannel_pool", 1),)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=options) as channel:
                return Counter([(await call(channel, GET, bearer(token()))).code.name for _ in range(20)])

        found = await asyncio.gather(*(on_a_connection_of_its_own() for _ in range(10)))

        assert sum(map(Counter, found), Counter[str]()) == {OK: 50, EXHAUSTED: 150}


def test_what_is_not_limited_costs_nothing() -> None:
    chain = str(bootstrap(Edge("127.0.0.1", 8700, "/admin.sock", "/xds.sock", "/calls.jsonl")))
    tool = tool_of(SERVICE, "unix:/tool.sock", costing("Get", options.COST_LOW), costing("Think", options.COST_HIGH))

    assert "llmesh.quota" not in chain
    assert b"llmesh.quota" not in build({SERVICE: tool}, policy_of())[ROUTES][SERVICE].value
    only_high = build({SERVICE: tool}, policy_of(), quotas=["calls", "high"])[ROUTES][SERVICE].value
    assert (only_high.count(b"llmesh.quota."), only_high.count(b"llmesh.quota.high")) == (1, 1)
