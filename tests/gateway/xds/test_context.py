"""Envoy knows how a call comes as governance does."""

from __future__ import annotations

import grpc

from gateway.snapshot.build import assemble, build_tool, residues
from governance.bundle import parse_bundle
from governance.decide import decide
from governance.words import Caller, Context, Outcome
from tests.envoy import bearer, mesh, policy_of, token
from tests.governance.rules import mesh as mesh_file
from tests.governance.rules import rule

CODES = {Outcome.ALLOW: grpc.StatusCode.OK, Outcome.DENY: grpc.StatusCode.PERMISSION_DENIED}
CONTEXTS = (
    "context.address == '127.0.0.1'",
    "context.address != '127.0.0.1'",
    "context.address == '127.0.0.2'",
    "context.address.startsWith('127.')",
    "context.address.startsWith('12.')",
    "context.address.endsWith('.0.1')",
    "context.address.contains('.0.0.')",
    "!context.address.contains('::')",
    "context.address in ['10.0.0.1']",
    "context.address in ['10.0.0.1', '127.0.0.1']",
    "!(context.address in ['10.0.0.1', '127.0.0.1'])",
    "context.address == '127.0.0.1:0' || context.address == '127.0.0.1\\n'",
    "'editor' in caller.roles && context.address.startsWith('127.0.0.')",
    "'editor' in caller.roles || !context.address.startsWith('127.0.0.')",
)


async def test_envoy_knows_where_a_call_comes_from_as_governance_does() -> None:
    said = (("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1"), ("x-real-ip", "10.0.0.1"))
    bundles = [parse_bundle(mesh_file(rule("a", "permit", text)), {}) for text in CONTEXTS]
    bundles += [parse_bundle(mesh_file(rule("all", "permit"), rule("a", "forbid", text)), {}) for text in CONTEXTS]
    async with mesh() as running:
        tools = [(running.tool(f"acme.support.v1.T{index}"), bundle) for index, bundle in enumerate(bundles)]
        known = {tool.service: residues(tool, bundle)["Get"] for tool, bundle in tools}
        built = {tool.service: build_tool(tool, {"Get": known[tool.service]}) for tool, _ in tools}
        await running.publish_resources(assemble(built, policy_of()))

        codes: list[grpc.StatusCode] = []
        for name, residue in known.items():
            for roles in ((), ("editor",)):
                decision = decide(residue, Caller("corp", "sam", roles), Context("127.0.0.1"))
                answer = await running.call(f"/{name}/Get", (*bearer(token({"roles": list(roles)})), *said))
                codes.append(answer.code)
                assert answer.code is CODES[decision.outcome], (residue, roles)
                assert answer.info.metadata.get("rule", decision.rule) == decision.rule
    assert min(codes.count(code) for code in CODES.values()) > 20
