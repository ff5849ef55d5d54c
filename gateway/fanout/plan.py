"""Which methods a fan-out asks, settled before anything is sent. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.fanout.selector import Selector
from gateway.fanout.sight import SeenTakers
from gateway.fanout.takers import Taker
from gateway.snapshot.build import facts
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.errors import InvalidCall, MeshError, NotFound, Violation

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """takers: the methods to ask, in order of their names; never empty.

    denied_count: methods that take the request and that the caller may not call. denied: those of them that the
    caller may know by name. unasked_count: methods that are picked and that the caller may call, beside the takers.
    """

    takers: tuple[Taker, ...]
    denied_count: int
    denied: tuple[str, ...]
    unasked_count: int


@dataclass(slots=True)
class _Counts:
    """Why methods are left out."""

    denied: int = 0
    destructive: int = 0
    writes: int = 0
    unpicked: int = 0

    def told(self) -> str:
        """In words for the caller; empty if none was."""
        words = (
            (self.denied, "that you may not call"),
            (self.destructive, "that cannot be undone"),
            (self.writes, "that write, which needs `allow_writes`"),
            (self.unpicked, "that the selector does not pick"),
        )
        return ", ".join(f"{count} {what}" for count, what in words if count)


def make_plan(
    request_type: str,
    seen: SeenTakers,
    selector: Selector,
    *,
    may_call: Callable[[str], bool],
    allow_writes: bool,
) -> Plan:
    """The methods to ask of those that take a type.

    seen: in order of their names. may_call: whether the call itself lets its caller call a method, by its name; a
    tool that acts for its caller may call what it was given alone. Raises NotFound or InvalidCall.
    """
    known = [(taker, may) for taker, may in seen if may is not None or not taker.tool.sheet.hidden]
    if not known:
        message = f"no method on the mesh that you may know of takes `{request_type}`"
        raise NotFound(message, resource=("type", request_type), reason="UNKNOWN_TYPE")
    may_be_called = {
        taker.name for taker, may in known if may is not None and taker.method.name in may and may_call(taker.name)
    }
    _check_named(selector, seen, may_be_called, allow_writes=allow_writes)
    counts, denied, asked = _Counts(), list[str](), list[Taker]()
    for taker, may in known:
        if taker.name not in may_be_called:
            counts.denied += 1
            if may is not None:
                denied.append(taker.name)
        elif _is_wanted(taker, selector, counts, allow_writes=allow_writes):
            asked.append(taker)
    if not asked:
        message = f"no method that takes `{request_type}` is left to be asked: {counts.told()}"
        raise NotFound(message, resource=("type", request_type), reason="NO_METHOD_LEFT")
    takers = tuple(asked[: selector.limit])
    unasked = len(asked) - len(takers) + counts.destructive + counts.writes
    return Plan(takers, counts.denied, tuple(denied), unasked)


def _is_wanted(taker: Taker, selector: Selector, counts: _Counts, *, allow_writes: bool) -> bool:
    if not selector.picks(facts(taker.tool, taker.method)):
        counts.unpicked += 1
    elif _is_destructive(taker):
        counts.destructive += 1
    elif _writes(taker) and not allow_writes:
        counts.writes += 1
    else:
        return True
    return False


def _check_named(selector: Selector, seen: SeenTakers, may_be_called: set[str], *, allow_writes: bool) -> None:
    """Raise NotFound for a method that is named and not seen, InvalidCall for one that is not to be asked.

    may_be_called: names; of no other method is told what it does.
    """
    by_name = {taker.name: taker for taker, may in seen if may is not None}
    for name in sorted(selector.methods):
        taker = by_name.get(name)
        if taker is None:
            message = f"method `{name}` is not on the mesh, or takes another request"
            raise NotFound(message, resource=("method", name))
        if name not in may_be_called:
            continue
        if _is_destructive(taker):
            raise _bad_name(f"`{name}` cannot be undone: call it by itself")
        if _writes(taker) and not allow_writes:
            raise _bad_name(f"`{name}` writes: set `allow_writes` to have it asked")


def _bad_name(message: str) -> MeshError:
    return InvalidCall(message, [Violation("selector.methods", message, "EFFECT")], reason="BAD_SELECTOR")


def _is_destructive(taker: Taker) -> bool:
    return taker.method.effect not in (options.EFFECT_READ, options.EFFECT_WRITE)


def _writes(taker: Taker) -> bool:
    return taker.method.effect != options.EFFECT_READ
