"""What is blocked, as callers of the real Envoy meet it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any as Untyped

import grpc
import pytest

from gateway.bearing import Bearing
from gateway.blocks.words import Block, Target
from gateway.catalog import Tool
from gateway.snapshot.blocks import BLOCKS, METADATA
from gateway.snapshot.build import Resource, Resources, blocking, build, residues
from gateway.xds.messages import make, pack, serialize
from governance.bundle import parse_bundle
from governance.delegation import MAX_HOPS
from governance.issuers import parse_issuers
from governance.residue import Residue
from tests.envoy import ISSUERS, Mesh, Metadata, bearer, mesh, method_of, policy_of, token
from tests.gateway.blocks.world import block, caller, domain, method, tool
from tests.gateway.xds.delegation import carrying, minted
from tests.governance.rules import mesh as mesh_file
from tests.governance.rules import rule

TICKETS, TICKETS_X, DOCS = "acme.support.v1.Tickets", "acme.support.v1.TicketsX", "acme.engineering.v1.Docs"
VIP, VIPER = "acme.support.vip.v1.Desk", "acme.supporters.v1.Club"
SECRET = "acme.support.v1.Secret"  # noqa: S105 - a tool's name
PACKAGES = {
    "acme.support": "support",
    "acme.support.vip": "vip",
    "acme.supporters": "club",
    "acme.engineering": "engineering",
}
OTHER = "https://other.example"
TWO_ISSUERS = parse_issuers(ISSUERS + ISSUERS.partition("issuers:\n")[2].replace("corp", "other"))
# Outsiders may not know that the hidden tool is there; nobody may call one of its methods.
BUNDLE = parse_bundle(
    mesh_file(
        rule("reads", "permit", "!tool.hidden || caller.domain == 'support'", applies="{effects: [read]}"),
        rule("never", "forbid", applies="{methods: [Never]}"),
    ),
    {},
)


@dataclass(slots=True)
class Stopping:
    """A mesh whose tools can be blocked."""

    mesh: Mesh
    tools: Mapping[str, Tool]
    resources: Resources

    async def block(self, *blocks: Block, packages: Mapping[str, str] = PACKAGES) -> None:
        """Let these be all that is blocked."""
        bearing = Bearing(lambda tool: residues(tool, BUNDLE))
        found = {each.target: each for each in blocks}
        await self.mesh.publish_resources(blocking(self.resources, bearing.resource(found, self.tools, packages)))
        assert self.mesh.refused == []

    async def stops(self, service: str, name: str = "Get", **claims: Untyped) -> bool:
        """Whether a call is refused for a block; otherwise it is answered."""
        answer = await self.mesh.call(f"/{service}/{name}", bearer(token(**claims)))
        if answer.info.reason == "BLOCKED":
            assert answer.code is grpc.StatusCode.PERMISSION_DENIED
            return True
        assert answer.code is grpc.StatusCode.OK
        return False


@pytest.fixture
async def stopping() -> AsyncGenerator[Stopping]:
    async with mesh() as running:
        made = [
            running.tool(name, method_of("Get"), method_of("GetAll")) for name in (TICKETS, TICKETS_X, DOCS, VIP, VIPER)
        ]
        made.append(running.tool(SECRET, method_of("Get"), method_of("Never"), hidden=True))
        tools = {each.service: each for each in made}
        stopping = Stopping(running, tools, build(tools, policy_of(BUNDLE, TWO_ISSUERS)))
        await running.publish_resources(stopping.resources)
        yield stopping


BLOCKED: list[tuple[Target, str]] = [
    (tool(TICKETS), f"the tool `{TICKETS}`"),
    (method(f"{TICKETS}/Get"), f"the method `{TICKETS}/Get`"),
    (domain("support"), "the domain `support`"),
    (caller("sam"), "the caller `sam` of the issuer `corp`"),
]


@pytest.mark.parametrize(("target", "named"), BLOCKED, ids=[target.kind for target, _ in BLOCKED])
async def test_who_calls_what_is_blocked_reads_why(stopping: Stopping, target: Target, named: str) -> None:
    await stopping.block(block(target, "it gives away other customers' tickets", until_us=4102444800_000_000))

    answer = await stopping.mesh.call(f"/{TICKETS}/Get")

    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    until = "2100-01-01T00:00:00Z"
    assert answer.message == f"{named} is blocked until {until}: it gives away other customers' tickets"
    assert (answer.info.reason, answer.info.domain) == ("BLOCKED", "llmesh")
    assert dict(answer.info.metadata) == {
        "block": "b1",
        "reason": "it gives away other customers' tickets",
        "until": until,
    }
    assert answer.metadata["x-llmesh-call-id"]
    assert not stopping.mesh.backend.calls


@pytest.mark.parametrize("target", [target for target, _ in BLOCKED], ids=[target.kind for target, _ in BLOCKED])
async def test_what_is_unblocked_goes_on(stopping: Stopping, target: Target) -> None:
    await stopping.block(block(target))
    assert await stopping.stops(TICKETS)

    await stopping.block()

    assert not await stopping.stops(TICKETS)


async def test_a_blocked_tool_stops_no_other(stopping: Stopping) -> None:
    await stopping.block(block(tool(TICKETS)))

    assert await stopping.stops(TICKETS)
    assert await stopping.stops(TICKETS, "GetAll")
    assert not await stopping.stops(TICKETS_X)
    assert not await stopping.stops(DOCS)


async def test_a_blocked_method_stops_no_other(stopping: Stopping) -> None:
    await stopping.block(block(method(f"{TICKETS}/Get")))

    assert await stopping.stops(TICKETS)
    assert not await stopping.stops(TICKETS, "GetAll")
    assert not await stopping.stops(TICKETS_X)


async def test_a_blocked_domain_stops_its_packages_alone(stopping: Stopping) -> None:
    await stopping.block(block(domain("support")))

    assert await stopping.stops(TICKETS)
    assert await stopping.stops(TICKETS_X)
    assert not await stopping.stops(VIP)
    assert not await stopping.stops(VIPER)
    assert not await stopping.stops(DOCS)


async def test_a_blocked_domain_stops_a_tool_that_comes_later(stopping: Stopping) -> None:
    await stopping.block(block(domain("support")))
    late = stopping.mesh.tool("acme.support.v2.Late")
    made = {**stopping.tools, late.service: late}

    stopping.resources = build(made, policy_of(BUNDLE, TWO_ISSUERS))
    await stopping.block(block(domain("support")))

    assert await stopping.stops(late.service)


async def test_a_blocked_caller_is_stopped_everywhere_and_nobody_else_is(stopping: Stopping) -> None:
    await stopping.block(block(caller("sam")))

    assert await stopping.stops(TICKETS)
    assert await stopping.stops(DOCS)
    assert not await stopping.stops(TICKETS, sub="samantha")
    assert not await stopping.stops(TICKETS, sub="sa")
    assert not await stopping.stops(TICKETS, sub="Sam")


async def test_the_same_subject_of_another_issuer_is_another_caller(stopping: Stopping) -> None:
    await stopping.block(block(caller("sam")), block(caller("eve", "other")))

    assert await stopping.stops(TICKETS)
    assert not await stopping.stops(TICKETS, iss=OTHER)
    assert await stopping.stops(TICKETS, iss=OTHER, sub="eve")
    assert not await stopping.stops(TICKETS, sub="eve")


async def test_the_most_particular_of_several_blocks_is_told(stopping: Stopping) -> None:
    of_domain, of_tool = block(domain("support"), "of the domain"), block(tool(TICKETS), "of the tool")
    of_method, of_caller = block(method(f"{TICKETS}/Get"), "of the method"), block(caller("sam"), "of the caller")
    await stopping.block(of_domain, of_tool, of_method, of_caller)

    def reason(name: str, **claims: Untyped) -> asyncio.Task[str]:
        async def read() -> str:
            answer = await stopping.mesh.call(name, bearer(token(**claims)))
            return str(answer.info.metadata["reason"])

        return asyncio.ensure_future(read())

    assert await reason(f"/{TICKETS}/Get") == "of the caller"
    assert await reason(f"/{TICKETS}/Get", sub="ann") == "of the method"
    assert await reason(f"/{TICKETS}/GetAll", sub="ann") == "of the tool"
    assert await reason(f"/{TICKETS_X}/Get", sub="ann") == "of the domain"


def for_sam(service: str, *acting: str) -> Metadata:
    """What methods that act for sam call a service with."""
    return carrying(minted(path=[f"/{method}" for method in acting], methods=[f"/{service}/Get"]))


@pytest.mark.parametrize("acting", [[TICKETS], [VIPER, TICKETS], [VIPER, TICKETS, VIP], [TICKETS, VIP, VIPER]], ids=len)
@pytest.mark.parametrize("target", [tool(TICKETS), method(f"{TICKETS}/Ask"), domain("support")], ids=str)
async def test_what_is_blocked_calls_nobody_however_far_up_it_acts(
    stopping: Stopping, target: Target, acting: list[str]
) -> None:
    await stopping.block(block(target))
    metadata = for_sam(DOCS, *(f"{service}/Ask" for service in acting))

    answer = await stopping.mesh.call(f"/{DOCS}/Get", metadata)

    assert answer.info.reason == "BLOCKED"
    assert "calls for you" in answer.message
    await stopping.block()
    assert (await stopping.mesh.call(f"/{DOCS}/Get", metadata)).code is grpc.StatusCode.OK


@pytest.mark.parametrize("hop", range(MAX_HOPS))
async def test_a_blocked_tool_is_found_at_each_hop(stopping: Stopping, hop: int) -> None:
    await stopping.block(block(tool(TICKETS)))
    acting = [f"acme.engineering.v1.Hop{number}/Ask" for number in range(MAX_HOPS)]
    acting[hop] = f"{TICKETS}/Ask"

    assert (await stopping.mesh.call(f"/{DOCS}/Get", for_sam(DOCS, *acting))).info.reason == "BLOCKED"


@pytest.mark.parametrize(
    ("target", "acting"),
    [
        (tool(TICKETS), f"{TICKETS_X}/Ask"),
        (method(f"{TICKETS}/Ask"), f"{TICKETS}/AskAll"),
        (domain("support"), f"{VIPER}/Ask"),
        (domain("support"), f"{VIP}/Ask"),
    ],
    ids=str,
)
async def test_what_is_not_blocked_goes_on_to_call_others(stopping: Stopping, target: Target, acting: str) -> None:
    await stopping.block(block(target))
    assert (await stopping.mesh.call(f"/{DOCS}/Get", for_sam(DOCS, acting))).code is grpc.StatusCode.OK


@pytest.mark.parametrize("actor", [VIPER, VIP, DOCS, "acme.support.vipers.v1.Desk"])
async def test_a_block_of_one_domain_frees_no_tool_of_another_from_the_other_blocks(
    stopping: Stopping, actor: str
) -> None:
    elsewhere = [block(domain("elsewhere")), block(domain("support"))]
    packages = {**PACKAGES, "acme.support.vipers": "vip", "acme.elsewhere": "elsewhere"}

    async def stops(service: str, *others: Block) -> bool:
        await stopping.block(*elsewhere, *others, packages=packages)
        answer = await stopping.mesh.call(f"/{service}/Get", for_sam(service, f"{actor}/Ask"))
        assert answer.info.reason in ("", "BLOCKED")
        return answer.info.reason == "BLOCKED"

    assert await stops(TICKETS)
    assert not await stops(VIP)
    assert await stops(VIP, block(caller("sam")))
    assert await stops(VIP, block(tool(VIP)))
    assert await stops(VIP, block(method(f"{VIP}/Get")))
    assert await stops(VIP, block(domain("vip")))


async def test_a_client_cannot_say_that_it_is_somebody_else(stopping: Stopping) -> None:
    await stopping.block(block(caller("sam")), block(tool(TICKETS)))
    said = {
        "x-llmesh-subject": "ann",
        "x-llmesh-issuer": "other",
        "x-llmesh-actor": DOCS,
        "x-llmesh-acting-1": f"/{DOCS}/Ask",
        "X-LLMESH-SUBJECT": "ann",
        "x-envoy-original-path": f"/{DOCS}/Get",
    }
    for name, value in said.items():
        header = ((name.lower(), value),)
        answers = [
            await stopping.mesh.call(f"/{DOCS}/Get", (*bearer(token()), *header)),
            await stopping.mesh.call(f"/{DOCS}/Get", (*header, *bearer(token()))),
            await stopping.mesh.call(f"/{TICKETS}/Get", (*bearer(token(sub="ann")), *header)),
        ]
        assert {answer.info.reason for answer in answers} == {"BLOCKED"}, name
    innocent = await stopping.mesh.call(f"/{DOCS}/Get", (*bearer(token(sub="ann")), ("x-llmesh-subject", "sam")))
    assert innocent.code is grpc.StatusCode.OK


async def test_no_spelling_of_a_path_reaches_a_blocked_tool(stopping: Stopping) -> None:
    await stopping.block(block(tool(TICKETS)), block(method(f"{DOCS}/Get")))
    for path in (
        f"//{TICKETS}/Get",
        f"/{TICKETS}//Get",
        f"/{TICKETS}/Get/",
        f"/{TICKETS}/Get?a=b",
        f"/{TICKETS}/Get#a",
        f"/{TICKETS}/./Get",
        f"/{DOCS}/../{TICKETS}/Get",
        f"/{TICKETS}%2fGet",
        f"/{TICKETS.replace('T', '%54')}/Get",
        f"/{TICKETS.upper()}/Get",
        f"/{DOCS}/Get?",
        f"/{DOCS}/%47et",
        f"/{DOCS}//Get",
    ):
        assert (await stopping.mesh.call(path)).code is not grpc.StatusCode.OK, path
    assert not stopping.mesh.backend.calls


@pytest.mark.parametrize(
    "target", [tool(SECRET), method(f"{SECRET}/Get"), tool("acme.support.v1.Absent")], ids=["tool", "method", "absent"]
)
async def test_a_blocked_hidden_tool_is_unknown_to_those_who_may_not_know_of_it(
    stopping: Stopping, target: Target
) -> None:
    await stopping.block(block(target))
    service = target.service

    outside, hollow = (
        await stopping.mesh.call(f"/{service}/Get"),
        await stopping.mesh.call("/acme.support.v1.Hollow/Get"),
    )
    never = await stopping.mesh.call(f"/{service}/Never", bearer(token(domain="support")))

    assert outside.code is hollow.code is never.code is grpc.StatusCode.UNIMPLEMENTED
    assert outside.message == hollow.message.replace("acme.support.v1.Hollow", service)
    assert outside.metadata.keys() == hollow.metadata.keys()
    assert outside.status is None
    if service == SECRET:
        inside = await stopping.mesh.call(f"/{service}/Get", bearer(token(domain="support")))
        assert inside.info.reason == "BLOCKED"
        assert "it leaks" in inside.message
    assert not stopping.mesh.backend.calls


async def test_a_hidden_tool_whose_rules_cannot_be_told_is_stopped_and_so_is_all_else(stopping: Stopping) -> None:
    def broken(tool: Tool) -> Mapping[str, Residue]:
        if tool.service == SECRET:
            raise ValueError("nobody thought of this")
        return residues(tool, BUNDLE)

    in_force = {each.target: each for each in (block(tool(SECRET)), block(tool(TICKETS)))}
    made = Bearing(broken).resource(in_force, stopping.tools, PACKAGES)
    await stopping.mesh.publish_resources(blocking(stopping.resources, made))

    inside = await stopping.mesh.call(f"/{SECRET}/Get", bearer(token(domain="support")))
    assert inside.code is grpc.StatusCode.UNIMPLEMENTED
    assert await stopping.stops(TICKETS)
    assert not await stopping.stops(DOCS)


@pytest.mark.parametrize(
    "reason",
    [
        "%CEL(request.headers['authorization'])% %REQ(authorization)% %%",
        "it's \"quoted\" \\ and 'quoted' ` } { ] [ ) $1",
        "none",
        "unknown",
        "größer 😀 日本語 \u202e",
        "two\nlines\r\nx-evil: yes\t.",
        "😀" * 300,
        "x" * 300,
    ],
    ids=["formats", "quotes", "a word of ours", "another", "unicode", "lines", "many bytes", "long"],
)
async def test_a_reason_reaches_the_caller_as_it_was_given(stopping: Stopping, reason: str) -> None:
    await stopping.block(block(tool(TICKETS), reason), block(caller("eve"), reason))

    for answer in (
        await stopping.mesh.call(f"/{TICKETS}/Get"),
        await stopping.mesh.call(f"/{DOCS}/Get", bearer(token(sub="eve"))),
    ):
        told = answer.info.metadata["reason"]
        assert told == reason or (told.endswith("...") and reason.startswith(told.removesuffix("...")))
        assert answer.message.endswith(f"is blocked: {told}")
        assert "x-evil" not in answer.metadata


async def test_a_call_of_which_nobody_said_that_it_is_free_is_refused(stopping: Stopping) -> None:
    silent = make(
        "envoy.config.core.v3.TypedExtensionConfig",
        name=BLOCKS,
        typed_config=pack(make("envoy.extensions.filters.http.rbac.v3.RBAC")),
    )
    await stopping.mesh.publish_resources(blocking(stopping.resources, Resource("silent", serialize(silent))))

    answer = await stopping.mesh.call(f"/{TICKETS}/Get", ((*bearer(token()), (METADATA, "allowed"))))

    assert answer.code is not grpc.StatusCode.OK
    assert not stopping.mesh.backend.calls
