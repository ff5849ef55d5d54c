"""The gateway's own servers: what clients call through Envoy, and where tools register."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.catalog import CatalogBoard, Tool
from gateway.clock import Clock
from gateway.search.learner import Learner
from gateway.search.searcher import Searcher
from gateway.services.blocks import Blocking, BlockServicer
from gateway.services.catalog import CatalogServicer, Foreseen, PromptsOf
from gateway.services.contracts import Contracts
from gateway.services.health import MeshHealthServicer
from gateway.services.reflection import MeshReflectionServicer
from gateway.services.registry import RegistryServicer
from gateway.services.visible import Permitted, View
from gateway.sources.lease import Leases
from llmesh import Server
from llmesh.home import Home

# Watches never end by themselves, and everything else takes milliseconds.
_DRAIN_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the services ask of governance.

    permitted: methods of a tool that some request of a caller could be
    permitted. foreseen: what would become of a call. owner_of: the domain that
    owns a service's package, None if none does. rules: the same object for as
    long as these answers stay the same of the same tools.
    """

    permitted: Permitted
    foreseen: Foreseen
    owner_of: Callable[[str], str | None]
    rules: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Served:
    """What the services answer from. searcher: whoever serves runs it, for meanings to be learnt."""

    view: View
    searcher: Searcher


@asynccontextmanager
async def serve(
    home: Home,
    board: CatalogBoard,
    leases: Leases,
    *,
    own: tuple[Tool, ...],
    permissions: Permissions,
    blocking: Blocking,
    prompts_of: PromptsOf,
    learner: Learner,
    clock: Clock,
    others: Callable[[View], Sequence[object]] = lambda _: (),
) -> AsyncGenerator[Served]:
    """Serve services and registry, at this process's own sockets, for as long as the block lasts.

    own: the platform's tools, which are these services; they are in the view
    whether or not the board has them. prompts_of: asks a tool for its prompts.
    learner: learns what tools mean. others: further servicers, of what callers
    may see.
    """
    view = View(board, permissions.permitted, own=own, blocked=blocking.blocks.of_tool)
    contracts = Contracts(view)
    # Every caller has the mesh's own services; who searches looks for something else.
    searcher = Searcher(
        *(lambda: view.catalog, view.permitted, learner), rules=permissions.rules, clock=clock, unsearched=view.own
    )
    async with AsyncExitStack() as running:
        catalog = CatalogServicer(
            *(view, contracts, searcher),
            foreseen=permissions.foreseen,
            owner_of=permissions.owner_of,
            prompts_of=prompts_of,
        )
        services = Server(
            catalog,
            MeshHealthServicer(view),
            MeshReflectionServicer(view, contracts),
            BlockServicer(view, blocking),
            *others(view),
            address=f"unix:{home.own(home.services_socket)}",
            drain_limit_s=_DRAIN_LIMIT_S,
        )
        await running.enter_async_context(services)
        registry = Server(
            RegistryServicer(leases, board),
            address=f"unix:{home.own(home.registry_socket)}",
            drain_limit_s=_DRAIN_LIMIT_S,
        )
        await running.enter_async_context(registry)
        yield Served(view, searcher)
