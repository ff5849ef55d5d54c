"""The vocabulary of policy: what every part of governance takes and gives.

Frozen values, no behaviour beyond what a reader would expect of the word.
`Tool` here is one method of one tool as rules see it: everything the mesh
knows of it when it is admitted. Effects, stages, costs and data classes are
the enums of llmesh.api.options.v1 as ints, unset already read as the most
restrictive value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from llmesh.api.options.v1 import options_pb2 as options

EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, as the issuer's bindings derive it.

    A field that nothing grants is empty, never absent. No subject: nobody,
    and nothing is permitted.
    """

    issuer: str = ""
    subject: str = ""
    roles: tuple[str, ...] = ()
    domain: str = ""
    clearances: tuple[str, ...] = ()
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """How a call comes. address: the IP address that it comes from, "10.0.0.5"; empty if that is not known."""

    address: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """One method of one tool, as rules see it; the facts of facts.proto."""

    service: str
    method: str
    domain: str
    effect: int = options.EFFECT_DESTRUCTIVE
    stage: int = options.STAGE_EXPERIMENTAL
    data_classes: tuple[str, ...] = ()
    unclassified: bool = True
    hidden: bool = False
    needs_approval: bool = False
    cost: int = options.COST_HIGH
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    @property
    def path(self) -> str:
        """The path of a call: "/acme.support.v1.Tickets/GetTicket"."""
        return f"/{self.service}/{self.method}"


class Outcome(Enum):
    """What becomes of a call."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Shadow:
    """A shadow rule that held of a call. outcome: what it would be if this rule, too, were enforced."""

    rule: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Decision:
    """One outcome, and why.

    `rule` is the id of the rule that decided: the permit of an ALLOW, the
    forbid of a DENY; empty where no rule permits. `reason` is for people.
    `shadows`: the shadow rules that held, in order of their ids.
    """

    outcome: Outcome
    rule: str
    reason: str
    shadows: tuple[Shadow, ...] = ()
