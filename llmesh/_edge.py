"""The one edge of a server: every call of all four shapes passes here, in and out.

A call's bytes become a message, its rules are checked, the servicer answers,
and whatever goes wrong becomes a google.rpc.Status. Handlers work on bytes as
far as gRPC knows, so that a message that doesn't parse, or an answer of the
wrong type, is told like any other error instead of in gRPC's own words.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Never, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]: it has stubs, but no py.typed

from llmesh._calls import CallInFlight, CallsInFlight
from llmesh._delegation import DELEGATION_KEY, Meshes
from llmesh._sizes import Sizes
from llmesh._tracing import answering as answering_span
from llmesh.call import PROVENANCE_MAX_BYTES, Call, answer
from llmesh.caller import CALL_ID_KEY, PROVENANCE_KEY, Caller, read_metadata
from llmesh.errors import DeadlineExceeded, InvalidCall, MeshError, ToolFailed, Unimplemented
from llmesh.log import call_facts
from llmesh.rules import violations
from llmesh.status import CODES, STATUS_KEY, status_from_error

if TYPE_CHECKING:
    import protovalidate

    # What gRPC itself declares as Any: the messages, whose types only a contract knows.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger("llmesh.server")

Metadatum = tuple[str, str | bytes]
T = TypeVar("T")

# An error's details need the rest of gRPC's 8 KiB.
_PROVENANCE_OF_ERROR_MAX_BYTES = 2048
# The issuer of tools that call in their own right.
_MESH = "llmesh"
# So long before its deadline a stream of answers is ended, or so much of the time that it had if that is less.
_EARLY_S = 0.1
_EARLY_SHARE = 0.05
# How gRPC tells of what it did not begin to do: of two writes at once, the second.
_NOT_BEGUN = "grpc_call_start_batch"


def wrap_handler(
    method: str,
    handler: Handler,
    *,
    sizes: Sizes,
    validator: protovalidate.Validator,
    calls: CallsInFlight,
    meshes: Meshes,
    standard: bool,
) -> Handler:
    """The handler of one method behind the edge.

    calls has each of them from when it arrived. meshes: what the calls call in turn.
    standard: of a service that every server has, for which no drain waits.
    """
    answering = _Answering(
        method, handler, sizes=sizes, validator=validator, calls=calls, meshes=meshes, standard=standard
    )
    match bool(handler.request_streaming), bool(handler.response_streaming):
        case False, False:
            return grpc.unary_unary_rpc_method_handler(answering.one)
        case False, True:
            return grpc.unary_stream_rpc_method_handler(answering.many)
        case True, False:
            return grpc.stream_unary_rpc_method_handler(answering.one)
        case _:
            return grpc.stream_stream_rpc_method_handler(answering.many)


class UnknownMethods(grpc.GenericRpcHandler):
    """Added last: answers for every method that nobody serves."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """A handler that names the path in its refusal."""
        method = handler_call_details.method

        async def answer(_: object, context: Context) -> None:
            await refuse(context, Unimplemented(f"no method `{method}` here", metadata={"method": method}))

        return grpc.stream_stream_rpc_method_handler(answer)


@dataclass(frozen=True, slots=True)
class _Messages:
    """The messages of one method: bytes to checked requests, responses to bytes."""

    sizes: Sizes
    validator: protovalidate.Validator
    deserialize: Callable[[bytes], Message]
    serializer: Callable[[object], bytes]

    def serialize(self, response: object) -> bytes:
        """The response as it is sent. Raises ToolFailed if it is too large."""
        data = self.serializer(response)
        self.sizes.check_response(len(data))
        return data

    def read(self, data: bytes) -> Message:
        """The request in data. Raises InvalidCall if it is too large, doesn't parse or breaks its rules."""
        self.sizes.check_request(len(data))
        try:
            message = self.deserialize(data)
        except DecodeError as err:
            raise InvalidCall("the request is not a message of this method's type", reason="MALFORMED") from err
        found = violations(self.validator, message)
        if found:
            first = found[0]
            raise InvalidCall(f"`{first.field}` {first.description}" if first.field else first.description, found)
        return message

    async def read_all(self, requests: AsyncIterable[bytes]) -> AsyncIterator[Message]:
        """Each request of a stream, checked."""
        async for data in requests:
            yield self.read(data)


class _CheckedContext:
    """gRPC's context of a call, as a servicer sees it: messages in and out, provenance with an abort."""

    def __init__(self, context: Context, messages: _Messages, call: Call, in_flight: CallInFlight) -> None:
        self._context = context
        self._call = call
        self._messages = messages
        self._in_flight = in_flight
        self._begun = False

    def __getattr__(self, name: str) -> object:
        """All else is gRPC's own."""
        return getattr(self._context, name)

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        """The metadata that came with the call, without the token, which is for the mesh alone."""
        return tuple(each for each in self._context.invocation_metadata() or () if each[0] != DELEGATION_KEY)

    async def read(self) -> object:
        """The next request, checked; grpc.aio.EOF after the last."""
        data = await self._context.read()
        return data if data is grpc.aio.EOF else self._messages.read(data)

    async def send_initial_metadata(self, metadata: tuple[Metadatum, ...]) -> None:
        """Begin to answer, with these headers."""
        self._begun = True
        await self._context.send_initial_metadata(metadata)

    async def write(self, message: object) -> None:
        """Send one response; await it before the next.

        Raises MeshError if the mesh has ended the call, and CancelledError if it is over for another reason.
        """
        self._in_flight.check()
        try:
            if not self._begun:
                # gRPC sends them with the first response else, and no status while that is on its way.
                await self.send_initial_metadata(())
            await self._context.write(self._messages.serialize(message))
        except grpc.aio.InternalError as err:
            if _NOT_BEGUN in str(err):
                raise
            # The call was over before its reader had room for it.
            raise asyncio.CancelledError from err

    @contextmanager
    def in_time(self) -> Generator[None]:
        """End the call by a status just before its deadline; at that, the mesh breaks off a stream that has begun."""
        remaining_s = self._call.remaining_s
        if remaining_s is None:
            yield
            return
        early_s = min(_EARLY_S, remaining_s * _EARLY_SHARE)
        self._call.end_early(early_s)
        late = DeadlineExceeded("the time that the call had is up")
        timer = asyncio.get_running_loop().call_later(remaining_s - early_s, self._in_flight.end, late)
        try:
            yield
        finally:
            timer.cancel()

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[Metadatum, ...] = ()
    ) -> Never:
        """End the call with a code; what was cited goes along."""
        cited = self._call.provenance(limit_bytes=_PROVENANCE_OF_ERROR_MAX_BYTES)
        await _close(self._context, code, details, _trailing(trailing_metadata or self._sent(), provenance=cited))

    async def abort_with_status(self, status: grpc.Status) -> Never:
        """End the call with a status; what was cited goes along."""
        await self.abort(status.code, status.details or "", tuple(status.trailing_metadata or ()))

    def _sent(self) -> tuple[Metadatum, ...]:
        return tuple(self._context.trailing_metadata() or ())


class _Answering:
    """One method of a server, and how its calls are answered."""

    def __init__(
        self,
        method: str,
        handler: Handler,
        *,
        sizes: Sizes,
        validator: protovalidate.Validator,
        calls: CallsInFlight,
        meshes: Meshes,
        standard: bool,
    ) -> None:
        self._method = method
        self._calls = calls
        self._standard = standard
        self._meshes = meshes
        self._request_streaming = bool(handler.request_streaming)
        self._behaviour = cast(
            "Callable[[object, _CheckedContext], Any]",
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream,
        )
        self._messages = _Messages(
            sizes=sizes,
            validator=validator,
            deserialize=cast("Callable[[bytes], Message]", handler.request_deserializer),
            serializer=cast("Callable[[object], bytes]", handler.response_serializer),
        )

    async def one(self, request: bytes | AsyncIterable[bytes], context: Context) -> bytes:
        """Answer a call that has one response."""

        async def answering(checked: _CheckedContext) -> bytes:
            return self._messages.serialize(await self._behaviour(self._read(request), checked))

        return await self._guard(context, answering)

    async def many(self, request: bytes | AsyncIterable[bytes], context: Context) -> None:
        """Answer a call that has a stream of responses."""

        async def answering(checked: _CheckedContext) -> None:
            responses = self._behaviour(self._read(request), checked)
            with checked.in_time():
                if not inspect.isasyncgen(responses):
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        await checked.write(response)

        await self._guard(context, answering)

    def _read(self, request: bytes | AsyncIterable[bytes]) -> Message | AsyncIterator[Message]:
        return self._messages.read(request) if isinstance(request, bytes) else self._messages.read_all(request)

    async def _guard(self, context: Context, answering: Callable[[_CheckedContext], Awaitable[T]]) -> T:
        """Answer with the call made current, and turn whatever goes wrong into a status."""
        metadata = tuple(context.invocation_metadata() or ())
        in_flight = self._calls.begin(standard=self._standard)
        call = self._call(context, in_flight.caller, metadata)
        answer(call)
        span = None if self._standard else answering_span(call, metadata)
        started_s = time.monotonic()
        outcome = "CANCELLED"
        try:
            in_flight.check()
            response = await answering(_CheckedContext(context, self._messages, call, in_flight))
            in_flight.check()
            _send_provenance(context, call)
            outcome = "OK"
        except grpc.aio.AbortError:
            outcome = "ABORTED_BY_TOOL"
            raise
        except asyncio.CancelledError:
            if in_flight.why_ended is None:
                raise
            in_flight.task.uncancel()
            outcome = in_flight.why_ended.code.name
            await _end(context, call, in_flight.why_ended)
        # The one place that catches everything: nothing of an unknown error may reach the caller.
        except Exception as err:  # noqa: BLE001
            status = _tell(err, call)
            outcome = CODES[status.code].name
            await _abort(context, status, provenance=call.provenance(limit_bytes=_PROVENANCE_OF_ERROR_MAX_BYTES))
        finally:
            took_ms = round((time.monotonic() - started_s) * 1000, 3)
            facts = {**call_facts(call), "code": outcome, "took_ms": took_ms}
            # Without an id it came from no caller: a health check, a lease renewed. What others ask in their own right,
            # as they learn, comes every second; the records have it.
            quiet = not call.call_id or (call.caller.issuer == _MESH and outcome == "OK")
            log.log(logging.DEBUG if quiet else logging.INFO, "call answered", extra=facts)
            if span is not None:
                span.end(outcome)
        return response

    def _call(self, context: Context, caller: Caller, metadata: Iterable[Metadatum]) -> Call:
        texts = read_metadata(metadata)
        remaining = context.time_remaining
        return Call(
            self._method,
            caller,
            call_id=texts.get(CALL_ID_KEY, ""),
            remaining=remaining,
            mesh=lambda: self._meshes.delegated(self._method, texts, remaining),
        )


def _tell(err: Exception, call: Call) -> status_pb2.Status:
    """What the caller is told: a MeshError as it is, of anything else only an incident's id.

    A group, as a TaskGroup raises, counts as its first MeshError if it holds nothing else.
    """
    leaves = _leaves(err)
    for leaf in leaves:
        if isinstance(leaf, grpc.aio.AbortError):
            raise leaf
    told = [leaf for leaf in leaves if isinstance(leaf, MeshError)]
    if len(told) == len(leaves):
        try:
            return status_from_error(told[0])
        except (TypeError, ValueError) as unsendable:
            # Its facts are no text that protobuf takes: a fault of the tool like any other.
            return _incident(unsendable, call)
    return _incident(err, call)


def _incident(err: Exception, call: Call) -> status_pb2.Status:
    """Write the error to the log, and name it to the caller."""
    incident = secrets.token_hex(6)
    facts = {**call_facts(call), "incident": incident}
    log.error("call failed unexpectedly", exc_info=err, extra=facts)
    message = f"internal error (incident {incident})"
    return status_from_error(ToolFailed(message, reason="INTERNAL", metadata={"incident": incident}))


def _leaves(err: BaseException) -> list[BaseException]:
    """The errors in a group, however nested; of anything else, itself."""
    if not isinstance(err, BaseExceptionGroup):
        return [err]
    group = cast("BaseExceptionGroup[BaseException]", err)
    return [leaf for inner in group.exceptions for leaf in _leaves(inner)]


async def _end(context: Context, call: Call, why: MeshError) -> Never:
    """End a call whose time is up, or that the mesh has stopped; of that no more is told than why."""
    late = isinstance(why, DeadlineExceeded)
    cited = call.provenance(limit_bytes=_PROVENANCE_OF_ERROR_MAX_BYTES) if late else ""
    await _abort(context, status_from_error(why), provenance=cited)


async def refuse(context: Context, error: MeshError) -> Never:
    """End a call that no servicer has seen."""
    await _abort(context, status_from_error(error), provenance="")


async def _abort(context: Context, status: status_pb2.Status, *, provenance: str) -> Never:
    own = (*(context.trailing_metadata() or ()), (STATUS_KEY, status.SerializeToString()))
    # INVARIANT: the Status's message is grpc-message; clients refuse a Status where they differ.
    await _close(context, CODES[status.code], status.message, _trailing(own, provenance=provenance))


async def _close(context: Context, code: grpc.StatusCode, message: str, trailing: tuple[Metadatum, ...]) -> Never:
    """Send a status, after what is being written. Raises gRPC's AbortError, and CancelledError if the call is over."""
    try:
        await context.abort(code, message, trailing)
    except grpc.aio.InternalError as err:
        # The reader had no room for it before leaving, or before the time was up.
        raise asyncio.CancelledError from err


def _send_provenance(context: Context, call: Call) -> None:
    cited = call.provenance(limit_bytes=PROVENANCE_MAX_BYTES)
    if cited:
        context.set_trailing_metadata(_trailing(context.trailing_metadata() or (), provenance=cited))


def _trailing(own: Iterable[Metadatum], *, provenance: str) -> tuple[Metadatum, ...]:
    return (*own, (PROVENANCE_KEY, provenance)) if provenance else tuple(own)
