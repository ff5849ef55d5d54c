"""What the records say of each way in which a call can end, by the log of the real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta

import grpc
import pytest

from gateway.bearing import Bearing
from gateway.records.ingest import Ingest
from gateway.records.judgement import Judge
from gateway.records.logged import Outcome
from gateway.records.store import Record
from gateway.snapshot.build import blocking, build, residues
from governance.bundle import parse_bundle
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.mesh_file import LimitSettings, QuotaSettings
from tests.e2e.raw import RawConnection, frame
from tests.envoy import Mesh, Metadata, bearer, mesh, method_of, policy_of, token, tool_of
from tests.eventually import eventually
from tests.gateway.blocks.world import block, caller
from tests.gateway.records.lines import Kept, caught_up
from tests.governance.rules import mesh as mesh_file
from tests.governance.rules import rule

TICKETS, GONE, ASKS = "acme.support.v1.Tickets", "acme.support.v1.Gone", "acme.support.v1.Asks"
BUNDLE = parse_bundle(
    mesh_file(
        rule("all", "permit", "!(caller.subject in ['nobody'])"),
        rule("no-erasing", "forbid", applies="{methods: [Erase]}"),
        rule("from-afar", "forbid", "context.address == '10.0.0.1'"),
        rule("trial", "forbid", "caller.subject == 'sam'", mode="shadow", applies="{methods: [Get]}"),
    ),
    {},
)
LIMITS = LimitSettings(quotas=QuotaSettings(medium=1))
MEDIUM = options.Method(cost=options.COST_MEDIUM)


@dataclass(slots=True)
class Recorded:
    """A mesh whose calls are recorded."""

    mesh: Mesh
    kept: Kept
    ingest: Ingest

    async def of(self, call_id: str, count: int = 1) -> list[Record]:
        """The call's records, once there are so many."""

        async def found() -> list[Record]:
            caught_up(self.ingest)
            found = [record for record in self.kept.records() if record.logged.call_id == call_id]
            assert len(found) == count, self.mesh.logged()
            return found

        return await eventually(found)

    async def newest(self) -> Record:
        """The record of the call that ended last, of those not read yet."""
        before = len(self.kept.records())

        async def found() -> Record:
            caught_up(self.ingest)
            records = self.kept.records()
            assert len(records) > before
            return records[-1]

        return await eventually(found)

    async def call(self, path: str, metadata: Metadata | None = None, *, count: int = 1) -> list[Record]:
        """Make a call; its records."""
        answer = await self.mesh.call(path, metadata)
        return await self.of(answer.metadata["x-llmesh-call-id"], count)


@pytest.fixture
async def recorded() -> AsyncGenerator[Recorded]:
    async with mesh(limits=LIMITS) as running:
        tools = [
            running.tool(
                TICKETS,
                method_of("Get"),
                method_of("Put", options.EFFECT_WRITE),
                method_of("Erase", options.EFFECT_DESTRUCTIVE),
                method_of("Watch", server_streaming=True, idle=timedelta(seconds=60)),
                method_of("Think", options=MEDIUM),
                method_of("Small", options=options.Method(max_request_bytes=10)),
            ),
            running.tool(ASKS, method_of("Ask", options=options.Method(uses=[f"{TICKETS}/Get"]))),
            tool_of(GONE, f"unix:{running.folder}/gone.sock", method_of("Put", options.EFFECT_WRITE)),
        ]
        await running.publish(*tools, policy=policy_of(BUNDLE), quotas=["medium"])
        kept = Kept(running.folder)
        judge = Judge({tool.service: tool for tool in tools}.get)
        judge.in_force(0, BUNDLE)
        ingest = Ingest(kept.path, kept.open, judge, settings=kept.settings, clock=kept.clock)
        yield Recorded(running, kept, ingest)
        assert ingest.disputed == 0
        assert ingest.broken_lines == 0
        if kept.engine:
            kept.engine.dispose()


async def test_a_read_has_one_record_with_the_permit_and_what_shadow_rules_would_have_done(recorded: Recorded) -> None:
    sent = token(roles=["agent", "editor"], domain="support", clearances=["pii"])
    [record] = await recorded.call(f"/{TICKETS}/Get", bearer(sent))
    logged = record.logged
    assert not logged.case.start
    assert (logged.case.caller.issuer, logged.case.caller.subject, logged.case.caller.actor) == ("corp", "sam", "")
    assert logged.case.caller.roles == ("agent", "editor")
    assert (logged.case.caller.domain, logged.case.caller.clearances) == ("support", ("pii",))
    assert (logged.case.service, logged.case.method, logged.case.contract) == (TICKETS, "Get", "digest")
    assert (logged.case.outcome, logged.case.code, logged.case.details) == (Outcome.ALLOWED, 0, "")
    assert logged.bytes_in == 5
    assert logged.bytes_out > 100
    judgement = record.judgement
    assert (judgement.bundle, judgement.rule) == (BUNDLE.digest, "mesh/all")
    assert judgement.shadow == (("mesh/trial", "deny"),)


async def test_a_write_has_a_record_of_its_start_and_one_of_its_end(recorded: Recorded) -> None:
    start, end = await recorded.call(f"/{TICKETS}/Put", count=2)
    assert (start.logged.case.start, end.logged.case.start) == (True, False)
    assert start.judgement == end.judgement
    assert start.judgement.rule == "mesh/all"
    assert start.logged.case.caller == end.logged.case.caller
    assert (start.logged.case.service, start.logged.case.method, start.logged.case.contract) == (
        TICKETS,
        "Put",
        "digest",
    )


async def test_the_start_of_a_stream_is_there_while_it_runs(recorded: Recorded) -> None:
    held = recorded.mesh.backend.held[f"/{TICKETS}/Watch"] = asyncio.Event()
    running = asyncio.create_task(recorded.mesh.call(f"/{TICKETS}/Watch"))
    start = await recorded.newest()
    assert (start.logged.case.start, start.logged.case.method) == (True, "Watch")
    held.set()
    assert (await running).code is grpc.StatusCode.OK
    assert [record.logged.case.start for record in await recorded.of(start.logged.call_id, 2)] == [True, False]


async def test_a_denied_call_has_the_rule_and_no_start(recorded: Recorded) -> None:
    [record] = await recorded.call(f"/{TICKETS}/Erase")
    assert (record.logged.case.outcome, record.logged.case.code) == (
        Outcome.DENIED,
        grpc.StatusCode.PERMISSION_DENIED.value[0],
    )
    assert (record.judgement.rule, record.judgement.bundle) == ("mesh/no-erasing", BUNDLE.digest)
    assert record.logged.case.details == ""


async def test_a_call_that_no_rule_permits_has_no_rule(recorded: Recorded) -> None:
    [record] = await recorded.call(f"/{TICKETS}/Get", bearer(token(sub="nobody")))
    assert (record.logged.case.outcome, record.judgement.rule) == (Outcome.DENIED, "")
    assert record.judgement.bundle == BUNDLE.digest


@pytest.mark.parametrize("sent", [(), bearer("no.such.token"), bearer(token(aud="other"))])
async def test_a_token_that_is_not_believed_leaves_no_caller(recorded: Recorded, sent: Metadata) -> None:
    [record] = await recorded.call(f"/{TICKETS}/Get", sent)
    assert (record.logged.case.outcome, record.logged.case.caller.subject) == (Outcome.UNAUTHENTICATED, "")
    assert record.logged.case.code == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert record.judgement.bundle == ""


async def test_a_blocked_call_names_the_block_though_it_has_ended_since(recorded: Recorded) -> None:
    stop = block(caller("sam"))
    tools, policy = recorded.mesh.served or ({}, policy_of())
    bearing = Bearing(lambda tool: residues(tool, BUNDLE))
    resources = build(tools, policy, quotas=["medium"])
    await recorded.mesh.publish_resources(blocking(resources, bearing.resource({stop.target: stop}, tools, {})))
    answer = await recorded.mesh.call(f"/{TICKETS}/Get")
    await recorded.mesh.publish_resources(blocking(resources, bearing.resource({}, tools, {})))

    [record] = await recorded.of(answer.metadata["x-llmesh-call-id"])
    assert (record.logged.case.outcome, record.judgement.rule) == (Outcome.BLOCKED, "block/b1")
    assert record.logged.case.caller.subject == "sam"


async def test_a_quota_that_is_used_up_limits(recorded: Recorded) -> None:
    async def is_limited() -> Record:
        [record] = await recorded.call(f"/{TICKETS}/Think")
        assert record.logged.case.outcome is Outcome.LIMITED
        return record

    record = await eventually(is_limited)
    assert record.logged.case.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


async def test_a_request_that_is_too_large_is_over_a_limit(recorded: Recorded) -> None:
    def send() -> str:
        with RawConnection(recorded.mesh.port) as raw:
            answer = raw.call(f"/{TICKETS}/Small", *bearer(token()), body=frame(b"x" * 100))
            return answer.get("x-llmesh-call-id")

    [record] = await recorded.of(await asyncio.to_thread(send))
    assert record.logged.case.outcome is Outcome.LIMITED
    assert record.logged.case.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize("path", [f"/{TICKETS}/Nope", "/acme.no.v1.Such/Method"])
async def test_a_method_that_the_mesh_lacks_has_its_name_and_no_contract(recorded: Recorded, path: str) -> None:
    [record] = await recorded.call(path)
    assert (record.logged.case.outcome, record.logged.case.contract) == (Outcome.UNKNOWN_METHOD, "")
    assert f"/{record.logged.case.service}/{record.logged.case.method}" == path
    assert record.logged.case.code == grpc.StatusCode.UNIMPLEMENTED.value[0]


async def test_a_tool_that_is_down_has_an_end_without_a_start_and_without_its_address(recorded: Recorded) -> None:
    [record] = await recorded.call(f"/{GONE}/Put")
    assert (record.logged.case.outcome, record.judgement.rule) == (Outcome.ALLOWED, "mesh/all")
    assert record.logged.case.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert record.logged.case.details == "upstream_reset_before_response_started{remote_connection_failure}"


async def test_a_tools_own_error_is_the_calls_code(recorded: Recorded) -> None:
    recorded.mesh.backend.failing = 1
    _, end = await recorded.call(f"/{TICKETS}/Put", count=2)
    assert (end.logged.case.outcome, end.logged.case.code) == (Outcome.ALLOWED, grpc.StatusCode.UNAVAILABLE.value[0])
    assert end.logged.case.details == ""


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_a_caller_that_leaves_is_recorded_as_such(recorded: Recorded, how: str) -> None:
    recorded.mesh.backend.held[f"/{TICKETS}/Put"] = asyncio.Event()
    running = asyncio.create_task(recorded.mesh.call(f"/{TICKETS}/Put", timeout_s=0.5 if how == "deadline" else 60))
    start = await recorded.newest()
    if how == "cancel":
        running.cancel()
    await asyncio.wait([running])
    _, end = await recorded.of(start.logged.call_id, 2)
    # Envoy may be the first to see that the deadline has passed.
    codes = {"cancel": ["CANCELLED"], "deadline": ["CANCELLED", "DEADLINE_EXCEEDED"]}[how]
    assert end.logged.case.code in [grpc.StatusCode[code].value[0] for code in codes]
    assert end.logged.case.outcome is Outcome.ALLOWED


async def test_a_call_that_a_tool_makes_names_what_it_was_made_for_and_who_acts(recorded: Recorded) -> None:
    answer = await recorded.mesh.call(f"/{ASKS}/Ask")
    [record] = await recorded.call(f"/{TICKETS}/Get", (("llmesh-delegation", answer.seen["llmesh-delegation"]),))
    assert record.logged.parent == answer.metadata["x-llmesh-call-id"]
    assert (record.logged.case.caller.subject, record.logged.case.caller.actor) == ("sam", ASKS)
    assert (record.logged.case.outcome, record.judgement.rule) == (Outcome.ALLOWED, "mesh/all")
    tree = recorded.kept.open().tree(record.logged.parent)
    assert [each.logged.case.service for each in tree] == [ASKS, TICKETS]


async def test_a_call_that_a_tool_may_not_make_for_its_caller_is_denied_by_delegation(recorded: Recorded) -> None:
    answer = await recorded.mesh.call(f"/{ASKS}/Ask")
    [record] = await recorded.call(f"/{ASKS}/Ask", (("llmesh-delegation", answer.seen["llmesh-delegation"]),))
    assert (record.logged.case.outcome, record.judgement.rule) == (Outcome.DENIED, "delegation")


async def test_what_is_no_call_is_malformed(recorded: Recorded) -> None:
    def send() -> list[str]:
        sent = bearer(token())
        with RawConnection(recorded.mesh.port) as raw:
            answers = [
                raw.call(f"/{TICKETS}/Get?secret=1", *sent),
                raw.call(f"/{TICKETS}/Get", *sent, content_type="text/html"),
                raw.call(f"/{TICKETS}/Get", *sent, ("grpc-timeout", "soon")),
                raw.call(f"/{TICKETS}/Get", *sent, method="GET"),
            ]
        return [answer.get("x-llmesh-call-id") for answer in answers]

    for call_id in await asyncio.to_thread(send):
        [record] = await recorded.of(call_id)
        assert record.logged.case.outcome is Outcome.MALFORMED
        assert record.judgement.rule.startswith("edge/")
        assert "secret" not in record.logged.case.method


async def test_nothing_that_a_caller_or_a_tool_sends_forges_a_record(recorded: Recorded) -> None:
    """Quotation marks, ends of lines and JSON, wherever the call log has something of a caller's."""
    sent = bearer(token(sub='sam"}{"caller":"root', roles=['a"b', "ok"], domain='x"}'))
    stolen = (("x-llmesh-actor", "robot"), ("x-llmesh-parent", "forged"), ("x-llmesh-provenance", "forged"))
    marked = (("x-llmesh-logs-start", "1"), ("x-request-id", "forged"), ("traceparent", "forged"))

    def send() -> str:
        with RawConnection(recorded.mesh.port) as raw:
            raw.call(f'/{TICKETS}/G"}},{{"call_id":"forged"}}', *sent)
            raw.call(f"/{TICKETS}/Get", *bearer(token()), *stolen, *marked).get("x-llmesh-call-id")
            return raw.call(f"/{TICKETS}/Get", *sent).get("x-llmesh-call-id")

    last = await asyncio.to_thread(send)
    await recorded.of(last)
    records = recorded.kept.records()
    assert len(records) == 3
    assert [record.logged.case.start for record in records] == [False, False, False]
    odd, stripped, evil = (record.logged for record in records)
    assert (odd.case.service, odd.case.method) == (TICKETS, 'G"},{"call_id":"forged"}')
    assert odd.case.outcome is Outcome.UNKNOWN_METHOD
    assert (stripped.case.caller.actor, stripped.parent, stripped.provenance) == ("", "", "")
    assert evil.case.caller.subject == 'sam"}{"caller":"root'
    assert evil.case.caller.roles == ("ok",)
    assert "forged" not in {record.logged.call_id for record in records}


async def test_no_record_and_no_line_has_a_token_or_a_value(recorded: Recorded) -> None:
    secret, sent = "hunter2", token(roles=["agent"], email="sam@acme.example")
    await recorded.call(f"/{TICKETS}/Get", (*bearer(sent), ("x-secret", secret)))
    await recorded.call(f"/{TICKETS}/Put", (*bearer(sent), ("x-secret", secret)), count=2)
    text = (recorded.mesh.folder / "calls.jsonl").read_text()
    text += json.dumps([repr(record) for record in recorded.kept.records()])
    for each in (secret, sent, *sent.split("."), "sam@acme.example", "Bearer"):
        assert each not in text
