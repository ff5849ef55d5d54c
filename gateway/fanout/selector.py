"""Which of the methods that take a request are to be asked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from governance.expression import EvaluationError, Expression, evaluate, fields_of
from governance.language import LanguageError, compile_rule
from governance.residue import facts_of
from governance.words import Tool
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.policy.v1 import facts_pb2
from llmesh.errors import InvalidCall, Violation

__all__ = ["MAX_BRANCHES", "Selector", "read_selector"]

MAX_BRANCHES = 256
# Texts that callers send again and again are compiled once.
_COMPILED = 256
_FIELDS = ", ".join(f"`{field.name}`" for field in facts_pb2.Tool.DESCRIPTOR.fields)


@dataclass(frozen=True, slots=True)
class Selector:
    """What a caller asks of methods. An empty field asks nothing. limit: 1 to MAX_BRANCHES."""

    domains: frozenset[str]
    tools: frozenset[str]
    methods: frozenset[str]
    stages: frozenset[int]
    labels: frozenset[tuple[str, str]]
    where: Expression | None
    limit: int

    def picks(self, method: Tool) -> bool:
        """Whether a method, as rules see it, has all that is asked."""
        return (
            (not self.domains or method.domain in self.domains)
            and (not self.tools or method.service in self.tools)
            and (not self.methods or method.path[1:] in self.methods)
            and (not self.stages or method.stage in self.stages)
            and self.labels <= method.labels.items()
            and (self.where is None or _holds(self.where, method))
        )


def read_selector(stated: pb.Selector) -> Selector:
    """The selector. Raises InvalidCall if `where` is no condition on a tool."""
    return Selector(
        domains=frozenset(stated.domains),
        tools=frozenset(stated.tools),
        methods=frozenset(stated.methods),
        stages=frozenset(stated.stages),
        labels=frozenset(stated.labels.items()),
        where=_compile(stated.where) if stated.where else None,
        limit=stated.limit or MAX_BRANCHES,
    )


def _compile(text: str) -> Expression:
    try:
        return _condition(text)
    except LanguageError as err:
        what = f"is no condition on `tool`, which has {_FIELDS}: {err}"
        told = [Violation("selector.where", what, "WHERE")]
        raise InvalidCall(f"`selector.where` {what}", told, reason="BAD_SELECTOR") from err


@lru_cache(_COMPILED)
def _condition(text: str) -> Expression:
    expression = compile_rule(text)
    for field in fields_of(expression):
        if field.root != "tool":
            raise LanguageError(f"`{field.root}.{field.name}` is nothing of a tool: compare fields of `tool` alone")
    return expression


def _holds(where: Expression, method: Tool) -> bool:
    """Whether the condition holds. One without a value, as of a label that the tool lacks, does not."""
    try:
        return bool(evaluate(where, facts_of(method)))
    except EvaluationError:
        return False
