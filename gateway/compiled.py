"""What tools are compiled to: made again only of those that changed, or whose rules did.

A tool that cannot be compiled is left out alone: nobody may call it, as what it
was compiled to before may follow rules that are no longer in force.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from gateway.catalog import Tool
from gateway.snapshot.build import NO_RESOURCES, Resource, Resources, build_parts, build_tool, residues
from governance.bundle import Bundle
from governance.edit import Edit, edit
from governance.residue import Residue

__all__ = ["TOOLS_A_TURN", "Compiled"]

log = logging.getLogger(__name__)

# Compiled in one go, before others have a turn.
TOOLS_A_TURN = 50

Residues = Mapping[str, Residue]


@dataclass(frozen=True, slots=True)
class _Built:
    """A tool, its methods' residues, and what it and its parts were compiled to, by name; None where that failed."""

    tool: Tool
    residues: Residues | None
    made: Mapping[str, Mapping[str, Resource]] | None


class Compiled:
    """Compiles tools, and keeps what they were compiled to."""

    def __init__(self, *, quotas: Collection[str] = ()) -> None:
        """Nothing is compiled yet. quotas: names of those that the listener has."""
        self._quotas = quotas
        # By service.
        self._built: dict[str, _Built] = {}
        self._residues: dict[str, tuple[Tool, Bundle, Residues]] = {}
        self._edit: tuple[Bundle, Bundle, Edit] | None = None
        # Type URL -> name -> resource, of all tools; the same object for as long as nothing of a type changes.
        self._made: Resources = NO_RESOURCES
        # Services that could not be compiled.
        self.broken: frozenset[str] = frozenset()
        # Told of a service that could not be compiled, with words for its owner; and of one that can be again.
        self.on_broken: Callable[[str, str], None] = lambda _service, _words: None
        self.on_mended: Callable[[str], None] = lambda _service: None

    def residues(self, tool: Tool, bundle: Bundle) -> Residues:
        """Method name -> residue. The same object for as long as neither tool nor rules change what is in it."""
        kept = self._residues.get(tool.service)
        if kept is not None and kept[0] is tool and kept[1] is bundle:
            return kept[2]
        if kept is not None and kept[0] is tool and not self._bears(kept[1], bundle, kept[2]):
            made = kept[2]
        else:
            made = residues(tool, bundle)
            if kept is not None and kept[2] == made:
                made = kept[2]
        self._residues[tool.service] = (tool, bundle, made)
        return made

    def _bears(self, before: Bundle, after: Bundle, known: Residues) -> bool:
        """Whether anything that differs between two bundles can bear on a tool."""
        if self._edit is None or self._edit[0] is not before or self._edit[1] is not after:
            self._edit = (before, after, edit(before, after))
        differs = self._edit[2]
        return any(differs.bears_on(residue.tool) for residue in known.values())

    async def resources(self, tools: Mapping[str, Tool], bundle: Bundle, *, over_tls: bool) -> Resources:
        """Type URL -> name -> resource, of these tools under these rules. One caller at a time.

        over_tls: whether the mesh reaches tools over TLS.
        """
        changes: list[tuple[_Built | None, _Built | None]] = []
        for service in self._built.keys() - tools.keys():
            changes.append((self._built.pop(service), None))
            self._residues.pop(service, None)
        compiled = 0
        for service, tool in tools.items():
            kept = self._built.get(service)
            built = self._build(tool, bundle, kept, over_tls=over_tls)
            if built is kept:
                continue
            self._built[service] = built
            changes.append((kept, built))
            if built.made is not None and kept is not None and kept.made is None:
                self.on_mended(service)
            compiled += 1
            if compiled % TOOLS_A_TURN == 0:
                # A new policy is as long to compile as there are tools, and others have calls to answer.
                await asyncio.sleep(0)
        if changes:
            self._take_in(changes)
        return self._made

    def _take_in(self, changes: Collection[tuple[_Built | None, _Built | None]]) -> None:
        made = {url: dict(named) for url, named in self._made.items()}
        touched: set[str] = set()
        for before, after in changes:
            old, new = _named(before), _named(after)
            for url, name in {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}:
                touched.add(url)
                if (url, name) in new:
                    made[url][name] = new[url, name]
                else:
                    del made[url][name]
        self._made = {url: made[url] if url in touched else named for url, named in self._made.items()}
        self.broken = frozenset(service for service, built in self._built.items() if built.made is None)

    def _build(self, tool: Tool, bundle: Bundle, kept: _Built | None, *, over_tls: bool) -> _Built:
        """What a tool is compiled to; what it was, where neither the tool nor what the rules say of it has changed."""
        known: Residues | None = None
        try:
            known = self.residues(tool, bundle)
            if kept is not None and kept.tool is tool and kept.residues is known:
                return kept
            built = build_tool(tool, known, over_tls=over_tls, quotas=self._quotas)
            return _Built(tool, known, {tool.service: built, **build_parts(tool, over_tls=over_tls)})
        except Exception:
            # Whatever it is about this tool, the others go on.
            log.exception("tool not compiled", extra={"service": tool.service})
            self.on_broken(tool.service, f"the gateway cannot compile {tool.service}: its log says why")
            return _Built(tool, known, None)


def _named(built: _Built | None) -> Mapping[tuple[str, str], Resource]:
    """Type URL and name -> resource, of a tool and its parts."""
    if built is None or built.made is None:
        return {}
    return {(url, name): resource for name, resources in built.made.items() for url, resource in resources.items()}
