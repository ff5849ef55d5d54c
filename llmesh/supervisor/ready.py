"""Whether the mesh does its work: what is missing until every tool can be called."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

import grpc.aio

from llmesh import MeshError, catalog
from llmesh.api.catalog.v1 import catalog_pb2 as pb

ASK_TIMEOUT_S = 2.0
PAUSE_S = 0.1


async def wait_ready(channel: grpc.aio.Channel, *, processes: Collection[str], timeout_s: float) -> dict[str, str]:
    """Wait until each of these processes serves tools that can be called through the mesh.

    Returns what isn't ready after timeout_s, with what is known of it: by the
    process's name, or by "mesh" if the mesh itself doesn't answer. The channel must
    be that of a caller with the role `platform`, who sees every endpoint.
    """
    deadline = time.monotonic() + timeout_s
    missing = {"mesh": "does not answer"}
    while True:
        try:
            missing = await _missing(channel, processes)
        except MeshError as err:
            missing = {"mesh": f"does not answer: {err}"}
        if not missing or time.monotonic() >= deadline:
            return missing
        await asyncio.sleep(PAUSE_S)


async def wait_listening(host: str, port: int, *, timeout_s: float) -> bool:
    """Wait until somebody listens there; whether somebody does.

    Asked of the kernel, not by a gRPC channel: that waits longer after each refusal.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(PAUSE_S)
        else:
            writer.close()
            await writer.wait_closed()
            return True


async def _missing(channel: grpc.aio.Channel, processes: Collection[str]) -> dict[str, str]:
    endpoints = await catalog.list_endpoints(channel, timeout_s=ASK_TIMEOUT_S)
    tools = await catalog.list_tools(channel, timeout_s=ASK_TIMEOUT_S)
    callable_services = {tool.service for tool in tools if tool.ready_count}
    return {name: fault for name in processes if (fault := _fault(name, endpoints, callable_services))}


def _fault(name: str, endpoints: Collection[pb.Endpoint], callable_services: Collection[str]) -> str:
    """Why this process's tools cannot be called; empty if they can."""
    own = [endpoint for endpoint in endpoints if _serves(endpoint, name)]
    if not own:
        return "has not registered"
    faults = [fault for endpoint in own if (fault := _endpoint_fault(endpoint, callable_services))]
    # Another life of the process may still be listed; one that serves is enough.
    return faults[0] if len(faults) == len(own) else ""


def _serves(endpoint: pb.Endpoint, name: str) -> bool:
    """Whether the endpoint is a socket of that process: run/tools/NAME-PID.sock."""
    stem, dash, pid = endpoint.address.rpartition("/")[2].removesuffix(".sock").rpartition("-")
    return bool(dash) and pid.isdigit() and stem == name


def _endpoint_fault(endpoint: pb.Endpoint, callable_services: Collection[str]) -> str:
    failed = next((step for step in endpoint.steps if not step.passed), None)
    if failed is not None:
        return f"was refused at `{failed.name}`: {failed.reason}: {failed.message}"
    if endpoint.state != pb.Endpoint.STATE_READY:
        return f"is {pb.Endpoint.State.Name(endpoint.state).removeprefix('STATE_').lower()}"
    waiting = [service for service in endpoint.services if service not in callable_services]
    return f"serves {', '.join(waiting)}, which cannot be called yet" if waiting else ""
