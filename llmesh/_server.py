"""A tool's server: from servicers to a process that answers calls and leaves the mesh in good order.

Starting: handlers behind the edge, reflection, health, a socket, a lease.
Stopping: the lease goes back first and health says so, so that no new call is
sent here; then the calls being answered end; then the socket goes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from llmesh._by_prompt import ByPrompt, PromptServicer
from llmesh._calls import CallServicer, CallsInFlight
from llmesh._delegation import Meshes
from llmesh._edge import UnknownMethods
from llmesh._health import HealthServicer
from llmesh._lease import Lease
from llmesh._own_mesh import IdentityServicer, OwnMesh
from llmesh._services import ServeError, compile_rules, find_services, wrap_services
from llmesh._sizes import MESSAGE_MAX_BYTES
from llmesh._tls import GatewayOnly, Tls, server_credentials
from llmesh._tracing import configure as configure_tracing
from llmesh.certificates import CertificateError
from llmesh.errors import Unavailable
from llmesh.home import SOCKET_PATH_MAX_BYTES, Home, HomeError, close_directory
from llmesh.log import configure_logging
from llmesh.readiness import Readiness
from llmesh.reflection import V1, V1ALPHA, reflect

if TYPE_CHECKING:
    from llmesh._edge import Handler
    from llmesh.prompt import Prompt

log = logging.getLogger("llmesh.server")

_HEALTH = "grpc.health.v1.Health"
# gRPC counts its own framing too; the mesh's limit is on the message.
_SLACK_BYTES = 64 * 1024
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES + _SLACK_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES + _SLACK_BYTES),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.so_reuseport", 0),
    # Envoy and the gateway keep idle connections alive; that is no reason to hang up on them.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
)
# How long the mesh gets to stop sending calls here once the lease is back.
_LAME_DUCK_S = 0.3
_ON_THE_WAY_S = 0.1
# How long calls that are cut have to say so: a servicer may not heed it, a reader not read.
_CUT_S = 0.5
# Longer than any pause of the process: a stop that is cut short must not end by itself first.
_NEVER_S = 3600.0
DRAIN_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a server listens: a Unix socket, or host:port; and the mesh whose lease it takes, if any.

    tls: None where it listens on TCP without.
    """

    socket: Path | None
    tcp: str
    home: Home | None
    tls: Tls | None = None


class Server:
    """Serves tools on one address: `async with llmesh.Server(MyServicer()) as server`.

    Listens on a Unix socket in the mesh directory and takes a lease there; an
    address ("unix:/path", or "host:port" with tls) replaces the socket, and a
    lease is then taken only for a home that is given too; a tool with tls takes
    none, as the mesh file names it. Callers are read from metadata: only the
    mesh can reach the socket, and with tls only the gateway is answered.
    Reflection and health are added unless a servicer serves them itself.
    Methods that no code implements are answered by the prompt that their
    contract names; a service that prompts alone implement is given as its
    generated class: `llmesh.Server(TriageServicer, prompts=[TRIAGE])`.
    """

    def __init__(
        self,
        *servicers: object,
        prompts: Iterable[Prompt] = (),
        name: str | None = None,
        home: str | Path | Home | None = None,
        address: str | None = None,
        tls: Tls | None = None,
        insecure_dev: bool = False,
        drain_limit_s: float = DRAIN_LIMIT_S,
        readiness: Readiness | None = None,
        own_mesh: OwnMesh | None = None,
    ) -> None:
        """Find what the servicers serve and where to listen; nothing is opened yet.

        prompts: those that code uses as well. name: of the process, in the
        socket's path; $LLMESH_NAME or the first service's name if None. tls: for
        an address on TCP. insecure_dev: listen there without protection and
        believe callers' headers from anybody. drain_limit_s: how long calls may
        go on once the server stops. readiness: what the health tells; None: ready
        from the start. own_mesh: by which one of the tools calls others in its own
        right.
        Raises ServeError.
        """
        by_prompt = ByPrompt(prompts)
        own = find_services(servicers, by_prompt=by_prompt.answering)
        self._prompts = PromptServicer(by_prompt)
        if V1ALPHA in own:
            own.setdefault(V1, own[V1ALPHA])
        if not own:
            message = "nothing to serve: pass at least one servicer"
            raise ServeError(message)
        self._tools = {service: methods for service, methods in own.items() if not _is_platform(service)}
        self._platform = {service: methods for service, methods in own.items() if _is_platform(service)}
        self._readiness = readiness or Readiness()
        if address is None or address.startswith("unix:"):
            self._place = _find_socket(name or os.environ.get("LLMESH_NAME") or _name_of(own), home, address, tls)
        else:
            self._place = _find_port(home, address, tls, insecure_dev=insecure_dev)
        self._drain_limit_s = drain_limit_s
        self._calls = CallsInFlight()
        self._meshes = Meshes(self._place.home)
        self._identity = (IdentityServicer(own_mesh, self.services, self._meshes),) if own_mesh else ()
        self._address = ""
        self._server: grpc.aio.Server | None = None
        self._lease: Lease | None = None
        self._tasks = AsyncExitStack()

    @property
    def services(self) -> tuple[str, ...]:
        """Full names of the tools' services, in order."""
        return tuple(sorted(self._tools))

    @property
    def address(self) -> str:
        """Where it listens, as a gRPC target: "unix:/path.sock" or "host:port". Empty before it has started."""
        return self._address

    async def start(self) -> None:
        """Listen, then take the lease. Raises ServeError if the address can't be had."""
        from protovalidate import Validator  # a fifth of a second that a client need not spend

        validator = Validator()
        compile_rules(self._tools, validator)
        standard = {**self._standard_services(), **self._platform}
        server = grpc.aio.server(options=_OPTIONS, interceptors=(GatewayOnly(),) if self._place.tls else ())
        server.add_generic_rpc_handlers(
            (
                *wrap_services(self._tools, validator=validator, calls=self._calls, meshes=self._meshes),
                *wrap_services(standard, validator=validator, calls=self._calls, meshes=self._meshes, standard=True),
                UnknownMethods(),
            )
        )
        self._address = _listen(server, self._place)
        await server.start()
        if self._place.socket:
            self._place.socket.chmod(0o600)
        self._server = server
        log.info("serving", extra={"address": self._address, "services": self.services})
        if self._place.home:
            self._lease = Lease(self._place.home.registry_socket, self._address)
            tasks = await self._tasks.enter_async_context(asyncio.TaskGroup())
            tasks.create_task(self._lease.hold(), name="llmesh lease")

    async def stop(self) -> None:
        """Leave the mesh, end the calls being answered, close the address: the drain limit and a second or two."""
        server, self._server = self._server, None
        if server is None:
            return
        self._readiness.end()
        try:
            await self._leave_mesh()
            await self._drain(server)
            for identity in self._identity:
                identity.end()
            await self._meshes.close()
        finally:
            if self._place.socket:
                self._place.socket.unlink(missing_ok=True)
        log.info("stopped", extra={"address": self._address})

    async def _drain(self, server: grpc.aio.Server) -> None:
        # One stop is over before the next begins: of two at once, the slower touches
        # a server that the faster has freed, and the process ends (SIGSEGV).
        ending = asyncio.create_task(server.stop(self._drain_limit_s + _NEVER_S))
        try:
            async with asyncio.timeout(self._drain_limit_s):
                # Calls that were sent before the other side heard that we stop are answered too.
                await asyncio.sleep(_ON_THE_WAY_S)
                await self._calls.wait_for_none()
        except TimeoutError:
            log.warning("calls cut at the drain limit", extra={"limit_s": self._drain_limit_s})
            await self._cut()
        finally:
            ending.cancel()
            await asyncio.wait((ending,))
        # Watches of health and reflection streams are left: nobody need wait for them.
        await server.stop(None)

    async def _cut(self) -> None:
        """Tell those who still wait that their calls are cut. No delay for another try: a call may have acted."""
        cut = Unavailable("the call was cut: the tool is stopping", reason="CALL_CUT")
        self._calls.end(lambda each: each.waited_for, cut)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._calls.wait_for_none(), _CUT_S)

    async def _leave_mesh(self) -> None:
        if self._lease:
            self._lease.end()
            await self._tasks.aclose()
            if self._lease.was_released:
                await asyncio.sleep(_LAME_DUCK_S)

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    def _standard_services(self) -> dict[str, dict[str, Handler]]:
        """Reflection and health of what is served, and what the gateway alone asks for, which nobody finds by them."""
        listed = (*self._tools, _HEALTH, V1, V1ALPHA)
        health = HealthServicer(self._tools, self._readiness)
        asked_by_gateway = CallServicer(self._calls), self._prompts, *self._identity
        standard = find_services((health, reflect(listed), *asked_by_gateway))
        return {**standard, V1: standard[V1ALPHA]}


def serve(
    *servicers: object,
    prompts: Iterable[Prompt] = (),
    name: str | None = None,
    home: str | Path | Home | None = None,
    address: str | None = None,
    tls: Tls | None = None,
    insecure_dev: bool = False,
    drain_limit_s: float = DRAIN_LIMIT_S,
    readiness: Readiness | None = None,
    own_mesh: OwnMesh | None = None,
    beside: AbstractAsyncContextManager[object] | None = None,
) -> None:
    """Serve tools until SIGTERM or SIGINT, then drain and return: `llmesh.serve(MyServicer())`.

    The arguments are Server's, and what to run beside it: entered before it
    serves, left once it has stopped. Entering must be quick: a signal meanwhile
    is heeded after it. A second signal ends the process at once.
    Exits with a message if the server cannot start.
    """
    configure_logging()
    configure_tracing()
    try:
        server = Server(
            *servicers,
            prompts=prompts,
            name=name,
            home=home,
            address=address,
            tls=tls,
            insecure_dev=insecure_dev,
            drain_limit_s=drain_limit_s,
            readiness=readiness,
            own_mesh=own_mesh,
        )
        asyncio.run(_serve_until_told(server, beside or nullcontext()))
    except (ServeError, HomeError) as err:
        sys.exit(f"llmesh: {err}")


async def _serve_until_told(server: Server, beside: AbstractAsyncContextManager[object]) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def tell() -> None:
        told.set()
        for number in signals:
            # The loop puts Python's own back when it closes, which for SIGINT would be a traceback.
            signal.signal(number, signal.SIG_DFL)

    # From the start: what is beside may have processes of its own by the time that it serves.
    for number in signals:
        loop.add_signal_handler(number, tell)
    async with beside, server:
        await told.wait()


def _find_socket(name: str, home: str | Path | Home | None, address: str | None, tls: Tls | None) -> _Place:
    if tls is not None:
        message = "`tls` is for TCP: name the address, `0.0.0.0:9000`; a Unix socket needs none"
        raise ServeError(message)
    if address is None:
        joined = Home.join() if home is None else _made(home)
        return _Place(joined.tool_socket(name), "", joined)
    path = Path(address.removeprefix("unix:").removeprefix("//")).absolute()
    return _Place(path, "", None if home is None else _made(home))


def _find_port(home: str | Path | Home | None, address: str, tls: Tls | None, *, insecure_dev: bool) -> _Place:
    if tls is not None and (insecure_dev or home is not None):
        message = "with `tls`, a tool is not `insecure_dev`, and takes no lease (`home`): name it in the mesh file"
        raise ServeError(message)
    if tls is None and not insecure_dev:
        message = (
            f"`{address}` is TCP, where anybody could claim to be any caller: pass tls=llmesh.Tls(...), serve on a "
            "Unix socket (leave the address out), or, to develop without protection, pass insecure_dev=True"
        )
        raise ServeError(message)
    if insecure_dev:
        told = {"address": address}
        log.warning("serving WITHOUT PROTECTION: callers' headers are believed from anybody", extra=told)
    return _Place(None, address, None if home is None else _made(home), tls)


def _made(home: str | Path | Home) -> Home:
    return (home if isinstance(home, Home) else Home.find(home)).create()


def _listen(server: grpc.aio.Server, place: _Place) -> str:
    """Bind the server to the place; the address it got."""
    if place.socket:
        _claim(place.socket)
    target = f"unix:{place.socket}" if place.socket else place.tcp
    try:
        if place.tls:
            port = server.add_secure_port(target, server_credentials(place.tls))
        else:
            port = server.add_insecure_port(target)
    except CertificateError as err:
        raise ServeError(str(err)) from err
    except RuntimeError as err:
        message = f"cannot listen on `{target}`"
        raise ServeError(message) from err
    return target if place.socket else f"{place.tcp.rpartition(':')[0]}:{port}"


def _claim(path: Path) -> None:
    """Make sure that path can be a socket of ours, in a directory closed to others; a dead one is removed."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_MAX_BYTES:
        message = f"`{path}` has {length} bytes; a Unix socket's path has at most {SOCKET_PATH_MAX_BYTES}"
        raise ServeError(message)
    close_directory(path.parent)
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        message = f"`{path}` is there already, and is no socket"
        raise ServeError(message)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    message = f"another process serves `{path}`"
    raise ServeError(message)


def _is_platform(service: str) -> bool:
    return service.startswith(("grpc.health.", "grpc.reflection."))


def _name_of(services: Iterable[str]) -> str:
    """The first service's own name: acme.engineering.v1.DocSearch is "doc_search" here."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", next(iter(services), "tool").rpartition(".")[2]).lower()
