"""Envoy decides as decide() does, and derives as derive() does: several hundred cells in one Envoy."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any as Untyped

import grpc
from google.protobuf.message import Message

from gateway.snapshot.access import PERMIT, deny_all
from gateway.snapshot.build import ROUTES, Resource, Resources, assemble, build_tool, facts, residues
from gateway.xds.messages import message_type, serialize
from governance.bundle import Bundle, parse_bundle
from governance.decide import decide
from governance.issuers import derive, parse_issuers
from governance.residue import specialise
from governance.words import Caller, Decision, Outcome
from tests.envoy import ISSUERS, Answer, Mesh, bearer, mesh, policy_of, token
from tests.governance.rules import domain, rule
from tests.governance.rules import mesh as mesh_file

BELIEVED = parse_issuers(
    ISSUERS
    + "  - {claim: realm.access, grants: role}\n"
    + "  - {claim: groups, has: llm-editors, grants: role, value: editor}\n"
    + "  - {claim: mfa, grants: clearance, value: strong}\n"
    + "  - {subject: robot-*, grants: role, value: robot}\n"
    + "  - {subject: a%*, grants: role, value: percent}\n"
)
CORP = BELIEVED.issuers[0]

CLAIMS: dict[str, dict[str, object]] = {
    "plain": {},
    "editor": {"roles": ["editor"], "domain": "support"},
    "owner": {"roles": ["owner", "editor"], "domain": "support", "clearances": ["pii"]},
    "other domain": {"roles": ["editor"], "domain": "sales", "clearances": ["pii", "secret"]},
    "one text": {"roles": "editor", "domain": "support", "clearances": "pii"},
    "nulls": {"roles": None, "domain": None, "clearances": None, "groups": None, "realm": None, "mfa": None},
    "numbers": {"roles": 1, "domain": 2.5, "clearances": -1, "groups": 0, "mfa": 1},
    "booleans": {"roles": True, "domain": True, "clearances": False, "groups": True, "mfa": True},
    "objects": {"roles": {"editor": "editor"}, "domain": {"support": 1}, "groups": {"llm-editors": True}, "mfa": {}},
    "mixed list": {"roles": [None, "editor", 5, ["owner"], {"owner": 1}, "b,owner", "x y", "robot", None]},
    "null first": {"roles": [None], "clearances": [None, "pii"], "domain": [None, "support", "sales"]},
    "nulls throughout": {"roles": [None, None, None, "editor", None, None, None, None, "owner", None, None]},
    "nested lists": {"roles": [["editor"]], "groups": [["llm-editors"]]},
    "commas": {"roles": ["a,editor", "editor,"], "domain": "support,", "clearances": "pii,secret"},
    "line ends": {
        "roles": ["editor\r\nx-llmesh-roles: owner", "editor\n"],
        "domain": "support\r",
        "clearances": "pii\n",
    },
    "NUL": {"roles": ["editor\x00", "\x00editor", "edi\x00tor"], "domain": "support\x00x", "groups": "llm-editors\x00"},
    "spaces": {"roles": [" editor", "editor ", ""], "domain": " support", "clearances": [""]},
    "other letters": {"roles": ["édiťor", "editor"], "domain": "süpport", "clearances": ["😀"]},
    "128 and 129": {"roles": ["r" * 128, "r" * 129], "domain": "d" * 128},
    "deep": {"realm": {"access": ["editor", "owner"]}},
    "deep, a list on the way": {"realm": [{"access": ["editor"]}]},
    "deep, a text on the way": {"realm": "access"},
    "deep, by number": {"realm": {"1": ["editor"], "access": {"1": "editor"}}},
    "group": {"groups": ["x", "llm-editors", None]},
    "group as text": {"groups": "llm-editors", "domain": "support"},
    "group, part of": {"groups": ["llm-editors2", "xllm-editors"]},
    "flag": {"mfa": "totp"},
    "empty list": {"roles": [], "mfa": [], "groups": []},
    "robot": {"sub": "robot-7"},
    "robot by name alone": {"sub": "a-robot-7", "domain": "support"},
    "pattern letters": {"sub": "a%d", "roles": ["%a+", "a.b:c@d/e+f-g_h"]},
    "odd subject": {"sub": "Jürgen Ü|,\"'\\;=😀", "domain": "support"},
    "long subject": {"sub": "s" * 256, "roles": ["editor"], "domain": "support"},
    "too long a subject": {"sub": "s" * 257, "roles": ["editor"], "domain": "support"},
    "too many bytes of subject": {"sub": "ü" * 129, "roles": ["owner"]},
    "no subject": {"sub": ..., "roles": ["owner"], "domain": "support"},
    "empty subject": {"sub": "", "roles": ["owner"], "domain": "support"},
    "subject with NUL": {"sub": "sam\x00root", "roles": ["owner"], "domain": "support"},
    "subject with line end": {"sub": "sam\r\nx-llmesh-roles: owner", "roles": ["owner"]},
    "subject with DEL": {"sub": "sam\x7f"},
    "subject with space before": {"sub": " sam"},
    "subject with space after": {"sub": "sam "},
    "own words": {"issuer": "evil", "subject": "root", "actor": "root", "v": {"roles": ["owner"]}},
    "repeated": {"roles": ["editor", "editor", "owner", "editor"], "realm": {"access": ["owner", "x"]}},
}

RULES = (
    "'editor' in caller.roles",
    "caller.domain == tool.domain && ('editor' in caller.roles || 'owner' in caller.roles)",
    "!('pii' in caller.clearances)",
    "size(caller.roles) > 1",
    "size(caller.roles) == 0 && caller.domain != ''",
    "caller.domain in ['sales', 'support'] ? 'owner' in caller.roles : caller.domain == ''",
    "caller.subject.startsWith('robot-') || caller.subject.contains('ü')",
    "caller.subject.endsWith('m') != caller.domain.endsWith('t')",
    "caller.subject < 'sam' || caller.subject > 't'",
    "size(caller.subject) >= 100 && size(caller.domain) <= 7",
    "caller.issuer == 'corp' && caller.actor == ''",
    "'strong' in caller.clearances || 'percent' in caller.roles",
    "tool.labels['tier'] == 'gold' || caller.domain == 'support'",
    "tool.labels['none'] == 'gold' || caller.domain == 'support'",
    "'' in caller.roles || '' in caller.clearances || caller.domain == ' support'",
    "caller.roles.size() < 3 && !(caller.domain == 'support' && 'pii' in caller.clearances)",
    "caller.domain in caller.roles || caller.subject in caller.clearances",
    "true",
    "false",
    'caller.domain == "it\'s \\"quoted\\" \\\\ \\n"',
)


def bundle_of(seed: random.Random) -> Bundle:
    """A few rules of each kind, and perhaps a domain that narrows them."""

    def rules(count: int, effects: tuple[str, ...]) -> list[str]:
        return [rule(f"r{number}", seed.choice(effects), seed.choice(RULES)) for number in range(count)]

    mesh_rules = rules(seed.randint(0, 4), ("permit", "permit", "permit", "forbid"))
    files = domain(
        "support", *rules(seed.randint(0, 3), ("permit", "forbid")), default=seed.choice(["inherit", "deny"])
    )
    return parse_bundle(mesh_file(*mesh_rules), files if seed.random() < 0.5 else {})


def bundles() -> list[Bundle]:
    """Each rule alone as a permit, each as a forbid, and some mixtures, the same each time."""
    seed = random.Random(20261122)  # noqa: S311 - for a table, not for a key
    alone = [parse_bundle(mesh_file(rule("one", "permit", text)), {}) for text in RULES]
    against = [parse_bundle(mesh_file(rule("all", "permit"), rule("one", "forbid", text)), {}) for text in RULES]
    return [*alone, *against, *(bundle_of(seed) for _ in range(20))]


def headers_of(caller: Caller) -> dict[str, str]:
    return {
        "x-llmesh-issuer": caller.issuer,
        "x-llmesh-subject": caller.subject,
        "x-llmesh-domain": caller.domain,
        "x-llmesh-roles": ",".join(caller.roles),
        "x-llmesh-clearances": ",".join(caller.clearances),
        "x-llmesh-actor": caller.actor,
    }


def disagreement(decision: Decision, caller: Caller, answer: Answer) -> str:
    """How Envoy's answer differs from the decision; empty if it does not."""
    if decision.outcome is Outcome.ALLOW:
        if answer.code is not grpc.StatusCode.OK:
            return f"allowed by {decision.rule}, but {answer.code} {answer.message}"
        seen = {name: answer.seen.get(name) for name in headers_of(caller)}
        return "" if seen == headers_of(caller) else f"the tool saw {seen}, not {headers_of(caller)}"
    if answer.code is not grpc.StatusCode.PERMISSION_DENIED:
        return f"denied by {decision.rule or 'none'}, but {answer.code} {answer.message}"
    if not caller.subject:
        return ""
    told = (answer.info.metadata["rule"], answer.info.metadata["reason"])
    return "" if told == (decision.rule, decision.reason) else f"denied by {told}, not {decision}"


async def disagreements(running: Mesh, decisions: Mapping[str, tuple[Bundle, Mapping[str, Decision]]]) -> list[str]:
    found: list[str] = []
    for name, claims in CLAIMS.items():
        carried = bearer(token(claims))
        caller = caller_of(claims)
        for service, (_, decided) in decisions.items():
            answer = await running.call(f"/{service}/Get", carried)
            wrong = disagreement(decided[name], caller, answer)
            if wrong:
                found.append(f"{name}, {service}: {wrong}")
    return found


def caller_of(claims: Mapping[str, object]) -> Caller:
    told = {"sub": "sam", **claims}
    return derive(CORP, {name: value for name, value in told.items() if value is not ...})


def without_reasons(resources: Resources) -> Resources:
    """The resources with every matcher taken out that only says why a call is refused."""
    routes: dict[str, Resource] = {}
    for name, resource in resources[ROUTES].items():
        message: Untyped = message_type("envoy.config.route.v3.RouteConfiguration").FromString(resource.value)
        for host in message.virtual_hosts:
            for route in host.routes:
                own = route.typed_per_filter_config["llmesh.rules"]
                own.value = serialize(_only_allowing(own.value))
        routes[name] = Resource(resource.version + "-", serialize(message))
    return {**resources, ROUTES: routes}


def _only_allowing(value: bytes) -> Message:
    per_route: Untyped = message_type("envoy.extensions.filters.http.rbac.v3.RBACPerRoute").FromString(value)
    matchers = per_route.rbac.matcher.matcher_list.matchers
    kept = [matcher for matcher in matchers if matcher.on_match.action.name == PERMIT]
    del matchers[:]
    matchers.extend(kept)
    if not kept:
        per_route.rbac.CopyFrom(deny_all())
    return per_route


async def test_envoy_decides_and_derives_as_governance_does() -> None:
    async with mesh() as running:
        policy = policy_of(issuers=BELIEVED)
        tools = {
            f"acme.support.v1.T{number}": (
                running.tool(f"acme.support.v1.T{number}", labels={"tier": "silver"}),
                bundle,
            )
            for number, bundle in enumerate(bundles())
        }
        decisions = {
            service: (
                bundle,
                {
                    name: decide(specialise(bundle, facts(tool, tool.methods[0])), caller_of(claims))
                    for name, claims in CLAIMS.items()
                },
            )
            for service, (tool, bundle) in tools.items()
        }
        built = {name: build_tool(tool, residues(tool, bundle)) for name, (tool, bundle) in tools.items()}
        resources = assemble(built, policy)
        await running.publish_resources(resources)

        assert running.refused == []
        outcomes = [decision.outcome for _, decided in decisions.values() for decision in decided.values()]
        assert min(outcomes.count(Outcome.ALLOW), outcomes.count(Outcome.DENY)) > 500  # a table of both
        assert await disagreements(running, decisions) == []

        await running.publish_resources(without_reasons(resources))
        for service, (_, decided) in decisions.items():
            for name in ("plain", "editor", "owner", "other domain", "one text", "robot"):
                answer = await running.call(f"/{service}/Get", bearer(token(CLAIMS[name])))
                assert (answer.code is grpc.StatusCode.OK) is (decided[name].outcome is Outcome.ALLOW), (service, name)
