"""Which of many blocks stops a call: as the real Envoy says, and as a list that is read from its top does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from gateway.bearing import Bearing
from gateway.blocks.words import Block, Target
from gateway.snapshot.build import blocking, build, residues
from governance.bundle import parse_bundle
from governance.delegation import ISSUER
from governance.ownership import Ownership
from tests.envoy import READS, mesh, method_of, policy_of
from tests.gateway.blocks.world import OPS, caller, domain, method, tool
from tests.gateway.xds.delegation import carrying, minted

SEED = 20_261_126
ROUNDS, CALLS = 15, 40
OWNERSHIP = Ownership(
    MappingProxyType({"acme.a": "a", "acme.a.b": "b", "acme.a.b.c": "a", "acme.aa": "aa", "acme": "all"})
)
SERVICES = ("acme.a.v1.T", "acme.a.v1.TT", "acme.a.b.v1.T", "acme.a.b.c.v1.T", "acme.aa.v1.T", "acme.v1.T")
METHODS = tuple(f"{service}/{name}" for service in SERVICES for name in ("Get", "GetAll"))
CALLERS = (
    *((issuer, subject) for issuer in ("corp", "other") for subject in ("sam", "samantha")),
    *((ISSUER, service) for service in SERVICES),
)
POLICY = policy_of(parse_bundle(READS, {}))


@dataclass(frozen=True, slots=True)
class Call:
    """One call. acting: methods between the caller and what is called."""

    issuer: str
    subject: str
    acting: tuple[str, ...]
    called: str


def random_call(random: Random) -> Call:
    issuer, subject = random.choice(CALLERS)
    *acting, called = random.sample(METHODS, random.randint(1, 6))
    return Call(issuer, subject, tuple(acting), called)


def random_blocks(random: Random) -> dict[Target, Block]:
    every = [
        *(tool(service) for service in SERVICES),
        *(method(name) for name in METHODS),
        *(domain(name) for name in OWNERSHIP.domains),
        *(caller(subject, issuer) for issuer, subject in CALLERS),
    ]
    chosen = random.sample(every, random.choice((0, 1, 1, 2, 3, 5, 8)))
    return {target: Block(f"b{number}", target, "it leaks", OPS, 1) for number, target in enumerate(chosen)}


def stops(call: Call) -> Iterator[Target]:
    """What would stop a call, the first one first."""
    if call.issuer == ISSUER:
        yield from stops_tool(call.subject)
    for name in call.acting:
        yield from stops_method(name)
    yield caller(call.subject, call.issuer)
    yield from stops_method(call.called)


def stops_method(name: str) -> Iterator[Target]:
    service = name.partition("/")[0]
    yield method(name)
    yield from stops_tool(service)


def stops_tool(service: str) -> Iterator[Target]:
    yield tool(service)
    yield domain(OWNERSHIP.owner_of(service) or "")


def block_of(call: Call, in_force: Mapping[Target, Block]) -> str:
    return next((in_force[target].id for target in stops(call) if target in in_force), "")


async def test_of_many_blocks_the_first_that_bears_on_a_call_stops_it() -> None:
    random = Random(SEED)  # noqa: S311 - a seed makes the same blocks again
    async with mesh() as running:
        made = [running.tool(service, method_of("Get"), method_of("GetAll")) for service in SERVICES]
        tools = {each.service: each for each in made}
        resources = build(tools, POLICY)
        found: list[tuple[Call, str, str]] = []
        for _ in range(ROUNDS):
            in_force = random_blocks(random)
            bearing = Bearing(lambda tool: residues(tool, POLICY.bundle))
            made_of = bearing.resource(in_force, tools, OWNERSHIP.prefixes)
            await running.publish_resources(blocking(resources, made_of))
            for call in [random_call(random) for _ in range(CALLS)]:
                token = minted(
                    issuer=call.issuer,
                    sub=call.subject,
                    path=[f"/{name}" for name in call.acting],
                    methods=[f"/{call.called}"],
                )
                answer = await running.call(f"/{call.called}", carrying(token))
                assert answer.info.reason in ("", "BLOCKED"), answer
                found.append((call, block_of(call, in_force), dict(answer.info.metadata).get("block", "")))

    assert [each for each in found if each[1] != each[2]] == []
    assert {bool(expected) for _, expected, _ in found} == {True, False}
