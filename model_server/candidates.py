"""The methods that a call may be chosen from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.errors import InvalidCall, Violation
from model_server.types import TypedType, Types

__all__ = ["Candidate", "find_candidates"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method that may be chosen. summary: what the model is told that it does; may be empty."""

    summary: str
    request: TypedType


async def find_candidates(asked: Iterable[pb.Candidate], types: Types) -> Mapping[str, Candidate]:
    """Each of them, by its path, in their order.

    Raises NotFound for one that isn't there or isn't seen, and InvalidCall for one that is named twice or whose request
    no schema says.
    """
    found: dict[str, Candidate] = {}
    for at, each in enumerate(asked):
        field = f"candidates[{at}].method"
        if each.method in found:
            words = f"names `{each.method}` a second time"
            raise InvalidCall(f"`{field}` {words}", [Violation(field, words)], reason="NAMED_TWICE")
        request = await types.find(each.method, field=field)
        found[each.method] = Candidate(each.summary or request.looked.summary, request)
    return found
