"""From servicers to handlers: which services an object serves, by the stubs it derives from."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from llmesh._calls import CallsInFlight
from llmesh._delegation import Meshes
from llmesh._edge import wrap_handler
from llmesh._sizes import sizes_of

if TYPE_CHECKING:
    import protovalidate

    from llmesh._edge import Handler


Behaviour = Callable[[Message, object], Awaitable[Message]]
ByPrompt = Callable[[MethodDescriptor], Behaviour | None]
"""What answers a method that no code implements; None if nothing does."""


class ServeError(Exception):
    """The server cannot start; the message says why and what to do."""


@dataclass(slots=True)
class _Path:
    """A call's details, as gRPC asks a service for its handler of a path."""

    method: str
    invocation_metadata: tuple[()] = ()


class _Recorder:
    """Stands in for a server where generated code registers its handlers."""

    def __init__(self) -> None:
        self.found: list[grpc.ServiceRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.ServiceRpcHandler]) -> None:
        self.found.extend(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Nothing: the same handlers came above."""


def find_services(
    servicers: Iterable[object], *, by_prompt: ByPrompt = lambda _: None
) -> dict[str, dict[str, Handler]]:
    """The handlers of every service that the servicers serve: full name -> method -> handler.

    A generated *Servicer class itself stands for a servicer that implements nothing. Raises ServeError for an object
    that derives from no such class, a service served twice, and a method that isn't `async def`.
    """
    services: dict[str, dict[str, Handler]] = {}
    for given in servicers:
        for handler in _register(given() if isinstance(given, type) else given):
            name = handler.service_name()
            if name in services:
                message = f"`{name}` is served twice"
                raise ServeError(message)
            services[name] = dict(_implemented(handler, name, by_prompt))
    return services


def compile_rules(services: Iterable[str], validator: protovalidate.Validator) -> None:
    """Compile the rules of every request type now, so that no call pays for it.

    Raises ServeError if a contract's rules don't compile.
    """
    from protovalidate import CompilationError  # a fifth of a second that a client need not spend

    for name in services:
        for method in _descriptor(name).methods:
            try:
                validator.collect_violations(message_factory.GetMessageClass(method.input_type)())
            except CompilationError as err:
                message = f"the rules of `{method.input_type.full_name}` do not compile: {err}"
                raise ServeError(message) from err


def wrap_services(
    services: Mapping[str, Mapping[str, Handler]],
    *,
    validator: protovalidate.Validator,
    calls: CallsInFlight,
    meshes: Meshes,
    standard: bool = False,
) -> tuple[grpc.GenericRpcHandler, ...]:
    """What a gRPC server takes: the services' handlers, each behind the edge. standard: every server has them."""
    return tuple(
        _Arriving(
            {
                f"/{service}/{name}": wrap_handler(
                    f"/{service}/{name}",
                    handler,
                    sizes=sizes_of(service, name),
                    validator=validator,
                    calls=calls,
                    meshes=meshes,
                    standard=standard,
                )
                for name, handler in methods.items()
            },
            calls,
        )
        for service, methods in services.items()
    )


class _Arriving(grpc.GenericRpcHandler):
    """Counts calls when gRPC asks for their handler: it calls the handler of a single request once that has come."""

    def __init__(self, handlers: Mapping[str, Handler], calls: CallsInFlight) -> None:
        """handlers: by path."""
        self._handlers = handlers
        self._calls = calls

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of the path."""
        handler = self._handlers.get(handler_call_details.method)
        if handler is not None:
            self._calls.arrive(handler_call_details.method, handler_call_details.invocation_metadata)
        return handler


def _register(servicer: object) -> list[grpc.ServiceRpcHandler]:
    """Let each generated base class of the servicer register it."""
    recorder = _Recorder()
    for base in type(servicer).__mro__:
        module = sys.modules.get(base.__module__)
        add = cast(
            "Callable[[object, _Recorder], None] | None", getattr(module, f"add_{base.__name__}_to_server", None)
        )
        if add:
            add(servicer, recorder)
    if not recorder.found:
        message = f"`{type(servicer).__name__}` serves nothing: derive it from a generated *Servicer class"
        raise ServeError(message)
    return recorder.found


def _descriptor(service: str) -> ServiceDescriptor:
    try:
        return descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        message = f"`{service}` has no descriptor: import its generated *_pb2 module"
        raise ServeError(message) from None


def _implemented(service: grpc.ServiceRpcHandler, name: str, by_prompt: ByPrompt) -> Iterator[tuple[str, Handler]]:
    """The methods that the servicer itself defines, or a prompt implements; what else there is, is unimplemented."""
    for method in _descriptor(name).methods:
        handler = service.service(_Path(f"/{name}/{method.name}"))
        if handler is None:
            continue
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        if inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour):
            yield method.name, handler
        elif not str(getattr(behaviour, "__module__", "")).endswith("_pb2_grpc"):
            message = f"`{name}/{method.name}` must be `async def`"
            raise ServeError(message)
        elif answer := by_prompt(method):
            yield method.name, _answered_by(answer, handler)


def _answered_by(answer: Behaviour, handler: Handler) -> Handler:
    """A handler of one request and one response, with another behaviour."""
    return grpc.unary_unary_rpc_method_handler(
        answer,  # pyright: ignore[reportArgumentType] the types of gRPC's stubs know no coroutine here
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
