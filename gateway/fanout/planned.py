"""Plans, made once for as long as what they are made of stays: callers ask the same again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from google.protobuf.message import Message

from gateway.fanout.behalf import Behalf
from gateway.fanout.branch import Respondent
from gateway.fanout.plan import Plan, make_plan
from gateway.fanout.selector import read_selector
from gateway.fanout.sight import SeenTakers, Sight
from gateway.fanout.takers import Types
from llmesh.api.mesh.v1 import mesh_pb2 as pb

__all__ = ["Planned", "Plans"]

# Those kept first are forgotten first.
_KEPT = 256
# Caller, type, the selector's hash, whether writes are allowed, and what the call may hand on.
_Key = tuple[object, str, bytes, bool, frozenset[str] | None]


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, with the types of its messages. asked: of the request. respondents: the plan's takers."""

    plan: Plan
    asked: type[Message]
    respondents: Sequence[Respondent]


class Plans:
    """The plans of fan-outs."""

    def __init__(self, sight: Sight) -> None:
        """sight: what callers may see: the same object for as long as that stays so."""
        self._sight = sight
        self._types = Types()
        self._kept: dict[_Key, tuple[SeenTakers, Planned]] = {}

    def of(self, request_type: str, request: pb.FanOutRequest, behalf: Behalf) -> Planned:
        """The plan of a fan-out of that type. Raises NotFound or InvalidCall."""
        stated = sha256(request.selector.SerializeToString(deterministic=True)).digest()
        key = (behalf.caller, request_type, stated, request.allow_writes, behalf.given)
        seen = self._sight.of(behalf.caller, request_type)
        kept = self._kept.get(key)
        if kept is not None and kept[0] is seen:
            return kept[1]
        planned = self._make(request_type, request, seen, behalf)
        if len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (seen, planned)
        return planned

    def _make(self, request_type: str, request: pb.FanOutRequest, seen: SeenTakers, behalf: Behalf) -> Planned:
        plan = make_plan(
            request_type,
            seen,
            read_selector(request.selector),
            may_call=behalf.may_call,
            allow_writes=request.allow_writes,
        )
        asked = self._types.of(plan.takers[0].tool.contract, request_type)
        # On the whole mesh, a name is one type: answers of one type are of one class, whichever contract has it.
        types: dict[str, type[Message]] = {}
        for taker in plan.takers:
            name = taker.method.response_type
            if name not in types:
                types[name] = self._types.of(taker.tool.contract, name)
        respondents = [Respondent(taker, types[taker.method.response_type]) for taker in plan.takers]
        return Planned(plan, asked, respondents)
