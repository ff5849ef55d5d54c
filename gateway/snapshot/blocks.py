"""What is stopped at once, whoever calls and whatever the rules say.

Two filters. `llmesh.blocks` looks up, by the derived caller and the path,
what is blocked, and writes what it found beside the call; it costs the same
for ten blocks as for ten thousand, and is delivered on its own. The one after
it, static, refuses every call that is not known to be free. Both are RBAC: the
first has two matchers, as what a caller reads is two texts, and the name of an
action is where a text can stand.

INVARIANT: a call goes on only if the first filter found, for this very call,
that nothing stops it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.blocks.words import Block, Kind, Target
from gateway.snapshot import refusals
from gateway.snapshot.predicate import predicate
from gateway.xds.messages import make, pack
from governance.delegation import MAX_HOPS
from governance.expression import FALSE, Expression
from llmesh.caller import ACTING_KEY

BLOCKS, STOPPED = "llmesh.blocks", "llmesh.stopped"
# Where the first filter writes: metadata of this name, under names that begin so.
METADATA = "envoy.filters.http.rbac"
_PREFIX = "block_"
STATUS, MESSAGE = f"{_PREFIX}enforced_effective_policy_id", f"{_PREFIX}shadow_effective_policy_id"
RESULT = f"{_PREFIX}shadow_engine_result"
# The action under which the second filter refuses.
BLOCKED = "blocked"
# Stands for the message where the call is to be answered as if there were no such method.
UNKNOWN = "unknown"
_FREE = "free"
# What a block's target is to the call, where it acts for the caller.
_ACTS, _OF = "which calls for you,", "which the tool that calls for you is of,"
_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"
# Blocks whose texts, and what is made of these, are kept in mind.
_KNOWN = 50_000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What blocks bear on.

    packages: package -> the domain that owns it. shown: services on the mesh
    that are not hidden. hidden: the hidden ones; of each, method -> whom the
    rules permit: nobody else may learn that it is there.
    """

    packages: Mapping[str, str]
    shown: Collection[str]
    hidden: Mapping[str, Mapping[str, Expression]]


@dataclass(frozen=True, slots=True)
class _Texts:
    """What a caller reads. A matcher's actions are named by one of the two."""

    status: str
    message: str


# Of most blocks nothing changes when one does.
@lru_cache(maxsize=_KNOWN)
def _texts(block: Block, as_what: str = "") -> _Texts:
    status = refusals.blocked(block, as_what)
    return _Texts(refusals.encoded(status), status.message)


_Matcher = dict[str, Untyped]
# An xds.type.matcher.v3.Matcher.OnMatch, or its fields.
_OnMatch = Message | dict[str, Untyped]


def blocks(in_force: Iterable[Block], surroundings: Surroundings) -> Message:
    """The filter that looks up what is blocked."""
    targets = {block.target: block for block in in_force}
    return make(
        _RBAC,
        rules_stat_prefix=_PREFIX,
        shadow_rules_stat_prefix=_PREFIX,
        matcher=_Tree(targets, surroundings, message=False).matcher(),
        shadow_matcher=_Tree(targets, surroundings, message=True).matcher(),
    )


def refuse_blocked() -> Message:
    """The filter that refuses what the other one has not found to be free."""
    place = make(
        "envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
        filter=METADATA,
        path=[{"key": RESULT}],
    )
    allowed = make(
        "envoy.extensions.matching.input_matchers.metadata.v3.Metadata", value={"string_match": {"exact": "allowed"}}
    )
    free = {
        "single_predicate": {
            "input": {"name": "envoy.matching.inputs.dynamic_metadata", "typed_config": pack(place)},
            "custom_match": {"name": "envoy.matching.matchers.metadata_matcher", "typed_config": pack(allowed)},
        }
    }
    return make(
        _RBAC,
        rules_stat_prefix="blocks_",
        matcher={
            "matcher_list": {"matchers": [{"predicate": free, "on_match": _action(_FREE, "ALLOW")}]},
            "on_no_match": _action(BLOCKED, "DENY"),
        },
    )


class _Tree:
    """One of the two matchers. message: the one whose actions are named by what callers read, and that tells."""

    def __init__(self, targets: Mapping[Target, Block], surroundings: Surroundings, *, message: bool) -> None:
        self._blocks: dict[Kind, list[Block]] = {kind: [] for kind in Kind}
        for target, block in targets.items():
            self._blocks[target.kind].append(block)
        self._surroundings = surroundings
        self._message = message
        # The one whose names are statuses never refuses: it would before its names can be read.
        self._found = "DENY" if message else "ALLOW"
        self._free = _action(_FREE, "ALLOW")

    def matcher(self) -> _Matcher:
        """Who calls comes first, the tools that act and the caller; then what is called.

        Of what acts or is called, a method comes before its tool, and that before its domain.
        """
        steps = (
            *self._acting(),
            _looked_up("x-llmesh-issuer", "exact_match_map", self._callers()),
            _looked_up(":path", "exact_match_map", self._methods()),
            _looked_up(":path", "prefix_match_map", self._services()),
        )
        found: _Matcher = {}
        for step in reversed(steps):
            if step:
                found = {**step, "on_no_match": {"matcher": found} if found else self._free}
        return found or {"on_no_match": self._free}

    def _acting(self) -> Iterator[_Matcher]:
        """Whatever stands between the caller and the call, however far up: a token outlives the block of any of it.

        Before that the caller, where it is a tool in its own right.
        """
        methods = {f"/{each.target.name}": self._told(each, _ACTS) for each in self._blocks[Kind.METHOD]}
        itself, tools = (
            {f"/{each.target.name}/": self._told(each, as_what) for each in self._blocks[Kind.TOOL]}
            for as_what in ("", _ACTS)
        )
        yield _looked_up(f"{ACTING_KEY}0", "prefix_match_map", itself)
        yield self._acting_domains(f"{ACTING_KEY}0")
        for hop in range(1, MAX_HOPS + 1):
            acts = f"{ACTING_KEY}{hop}"
            yield _looked_up(acts, "exact_match_map", methods)
            yield _looked_up(acts, "prefix_match_map", tools)
            yield self._acting_domains(acts, _OF)

    def _acting_domains(self, acts: str, as_what: str = "") -> _Matcher:
        """A list, as whatever is in none of these goes on. In a tree, as below, a prefix that frees ends it all."""
        owners = self._surroundings.packages
        matchers: list[_Matcher] = []
        for block in sorted(self._blocks[Kind.DOMAIN], key=lambda each: each.target):
            told = self._told(block, as_what)
            own = [package for package, domain in owners.items() if domain == block.target.name]
            others = owners.keys() - own
            for package in own:
                foreign = sorted(other for other in others if other.startswith(f"{package}."))
                matchers.append({"predicate": _within(acts, package, but=foreign), "on_match": told})
        return {"matcher_list": {"matchers": matchers}} if matchers else {}

    def _callers(self) -> _Matcher:
        """By issuer, then subject: of whom nothing is found there, the search goes on."""
        issuers: dict[str, dict[str, _OnMatch]] = {}
        for block in self._blocks[Kind.CALLER]:
            issuers.setdefault(block.target.issuer, {})[block.target.name] = self._told(block)
        return {
            issuer: {"matcher": _looked_up("x-llmesh-subject", "exact_match_map", subjects)}
            for issuer, subjects in issuers.items()
        }

    def _methods(self) -> _Matcher:
        return {f"/{block.target.name}": self._in_sight(block) for block in self._blocks[Kind.METHOD]}

    def _services(self) -> _Matcher:
        tools = {f"/{block.target.name}/": self._in_sight(block) for block in self._blocks[Kind.TOOL]}
        return {**self._domains(), **tools}

    def _domains(self) -> _Matcher:
        """By package. One within a blocked domain's that another domain owns is free: nothing comes after this."""
        blocked = {block.target.name: self._told(block) for block in self._blocks[Kind.DOMAIN]}
        if not blocked:
            return {}
        owners = self._surroundings.packages.items()
        return {f"/{package}.": blocked.get(domain, self._free) for package, domain in owners}

    def _in_sight(self, block: Block) -> _OnMatch:
        """A tool, or a method of it: what stops it is told to those whom the rules would let call it."""
        service = block.target.service
        if service in self._surroundings.shown:
            return self._told(block)
        told, unknown = self._told(block), self._action(replace(_texts(block), message=UNKNOWN))
        methods = {
            f"/{service}/{method}": {
                "matcher": {
                    "matcher_list": {"matchers": [{"predicate": predicate(permitted), "on_match": told}]},
                    "on_no_match": unknown,
                }
            }
            for method, permitted in self._surroundings.hidden.get(service, {}).items()
            if permitted != FALSE
        }
        if not methods:
            return unknown
        return {"matcher": {**_looked_up(":path", "exact_match_map", methods), "on_no_match": unknown}}

    def _told(self, block: Block, as_what: str = "") -> _OnMatch:
        return self._action(_texts(block, as_what))

    def _action(self, texts: _Texts) -> _OnMatch:
        return _action(texts.message if self._message else texts.status, self._found)


def _looked_up(header: str, how: str, found: Mapping[str, Untyped]) -> _Matcher:
    """What to do by a header's value, if anything. how: exact_match_map, or prefix_match_map: the longest counts."""
    return {"matcher_tree": {"input": _value_of(header), how: {"map": found}}} if found else {}


def _within(acts: str, package: str, *, but: Collection[str]) -> _Matcher:
    """Whether the method that acts is of a package, and not of one of those below it."""
    within, *others = (
        {"single_predicate": {"input": _value_of(acts), "value_match": {"prefix": f"/{each}."}}}
        for each in (package, *but)
    )
    return {"and_matcher": {"predicate": [within, *({"not_matcher": each} for each in others)]}} if others else within


def _value_of(header: str) -> dict[str, Untyped]:
    place = make("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=header)
    return {"name": header, "typed_config": pack(place)}


@lru_cache(maxsize=2 * _KNOWN)
def _action(name: str, action: str) -> Message:
    """An OnMatch. Nobody may change it."""
    decides = make("envoy.config.rbac.v3.Action", name=name, action=action)
    fields = {"name": "block", "typed_config": pack(decides)}
    return make("xds.type.matcher.v3.Matcher.OnMatch", action=fields)
