"""A deadline that passes at a tool first: gRPC answers there by itself, and must harm nothing else by it."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from gateway.snapshot.build import ROUTES, build
from tests.e2e.raw import RawConnection, frame
from tests.e2e.test_callers_that_attack_shared_connections import changed, without_rewrite
from tests.envoy import bearer, mesh, method_of, policy_of, token, tool_of

SERVICE = "acme.support.v1.Slow"
ROUTE = "envoy.config.route.v3.RouteConfiguration"


class Hanging(grpc.GenericRpcHandler):
    """Never answers."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        del handler_call_details

        async def answer(_data: bytes, _context: object) -> bytes:
            await asyncio.Event().wait()
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)  # pyright: ignore[reportArgumentType]


async def test_a_deadline_that_the_tools_grpc_sees_pass_first_ends_no_connection() -> None:
    async with mesh() as running:
        address = f"unix:{running.folder / 'slow.sock'}"
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Hanging(),))
        server.add_insecure_port(address)
        await server.start()
        tool = tool_of(SERVICE, address, method_of("Get"))
        # So that Envoy ends no call itself: it would be first most times.
        await running.publish_resources(changed(build({SERVICE: tool}, policy_of()), ROUTES, ROUTE, without_rewrite))

        def called() -> tuple[str, str]:
            # The first answer on a new connection to the tool.
            with RawConnection(running.port) as caller:
                asked = (*bearer(token()), ("grpc-timeout", "200m"))
                answer = caller.call(f"/{SERVICE}/Get", *asked, body=frame(b""))
            return answer.get("grpc-status"), answer.get("grpc-message")

        try:
            assert await asyncio.to_thread(called) == ("4", "Deadline Exceeded")
        finally:
            await server.stop(0)
