"""Legs alone, to a server that stands where Envoy does."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import multiprocessing
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any as Untyped

import grpc
import grpc.aio
import pytest

from gateway.fanout import lines, room
from gateway.fanout.allowances import Allowance
from gateway.fanout.legs import Leg, Legs, Metadata, Request, Stream
from gateway.fanout.lines import Lines
from llmesh.errors import OverQuota
from tests.eventually import eventually


class MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2: bytes in use are uordblks and hblkhd, mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _mallinfo2() -> Untyped:
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = MallInfo
    return ask()


ANSWERED = "/a.v1.Tool/Answered"
NOTHING, NO_METADATA = Request(b""), Metadata(())


class Hanging(grpc.GenericRpcHandler):
    """Answers nobody, but at these paths."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.answers: set[str] = set()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        path = str(handler_call_details.method)

        async def answer(_: bytes, _context: object) -> bytes:
            if path in self.answers:
                return b""
            self.open[path] += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.open[path] -= 1
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)  # pyright: ignore[reportArgumentType]


def serve(socket: str) -> None:
    """Serve in a process of its own, whose memory is nobody's business."""

    async def serving() -> None:
        server = grpc.aio.server()
        handler = Hanging()
        handler.answers.add(ANSWERED)
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serving())


@asynccontextmanager
async def hanging(folder: Path) -> AsyncGenerator[tuple[Legs, Hanging]]:
    server, handler = grpc.aio.server(), Hanging()
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{folder / 'legs.sock'}")
    await server.start()
    legs = Legs(Lines(folder / "legs.sock"))
    try:
        yield legs, handler
    finally:
        await legs.close()
        await server.stop(0)


def start(legs: Legs, path: str = "/a.v1.Tool/Get", caller: str = "sam") -> Leg:
    return legs.ask(path, NOTHING, NO_METADATA, caller=caller, holds=lambda _: True, ended=lambda _: None)


def read(legs: Legs, path: str = "/a.v1.Tool/Get", caller: str = "sam") -> Leg:
    async def reading(_: Leg, call: Stream) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await call.read()

    return legs.read(path, NOTHING, NO_METADATA, caller=caller, reading=reading)


async def nothing_is_left(legs: Legs) -> None:
    async def none() -> None:
        assert legs.count == 0

    await eventually(none, within_s=30)


async def test_a_young_leg_is_broken_off_only_while_that_harms_no_other(tmp_path: Path) -> None:
    async with hanging(tmp_path) as (legs, server):
        legs.lines.resets = lambda: Allowance(1, 0.25, 1)
        both = start(legs), start(legs)

        async def are_open() -> None:
            assert server.open.total() == 2

        await eventually(are_open, within_s=20)
        for leg in both:
            # Young, however long that took.
            leg.began_s = asyncio.get_running_loop().time()
            legs.release(leg)

        assert [leg.cancelling is not None for leg in both] == [False, True]
        await nothing_is_left(legs)

        async def are_closed() -> None:
            assert server.open.total() == 0

        await eventually(are_closed, within_s=20)


async def test_an_old_leg_is_broken_off_at_once(tmp_path: Path) -> None:
    async with hanging(tmp_path) as (legs, _):
        legs.lines.resets = lambda: Allowance(1, 0.25, 0)
        leg = start(legs)
        leg.began_s -= 60

        legs.release(leg)

        assert leg.cancelling is None
        await nothing_is_left(legs)


async def test_a_caller_and_a_tool_have_only_so_many_legs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "OF_A_TOOL", 2)
    monkeypatch.setattr(room, "OF_A_CALLER", 3)
    async with hanging(tmp_path) as (legs, _):
        started = [start(legs), start(legs)]
        with pytest.raises(OverQuota):
            start(legs)
        started.append(start(legs, "/b.v1.Other/Get"))
        with pytest.raises(OverQuota):
            legs.room.check("sam", 1)
        legs.room.check("ada", 1)
        for leg in started:
            legs.release(leg)
        await nothing_is_left(legs)
        legs.room.check("sam", 3)


async def test_no_caller_takes_all_the_room_at_a_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "OF_BOTH", 2)
    async with hanging(tmp_path) as (legs, _):
        started = [start(legs), start(legs)]
        with pytest.raises(OverQuota):
            start(legs)
        started += [start(legs, "/b.v1.Other/Get"), start(legs, caller="ada")]
        for leg in started:
            legs.release(leg)
        await nothing_is_left(legs)


async def test_a_leg_takes_its_callers_room_until_it_has_been_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "OF_A_CALLER", 1)
    async with hanging(tmp_path) as (legs, server):
        server.answers.add("/a.v1.Tool/Get")
        leg = start(legs)
        await nothing_is_left(legs)

        with pytest.raises(OverQuota):
            start(legs)
        legs.release(leg)
        legs.room.check("sam", 1)


async def test_each_caller_has_a_connection_that_closes_once_it_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "IDLE_S", 0.1)
    async with hanging(tmp_path) as (legs, server):
        started = [start(legs), start(legs), start(legs, caller="ada")]

        async def are_open() -> None:
            assert server.open.total() == 3

        await eventually(are_open, within_s=20)
        assert legs.lines.count == 2
        for leg in started:
            legs.release(leg)

        async def none_is_left() -> None:
            assert legs.lines.count == 0

        await eventually(none_is_left, within_s=30)


@pytest.mark.parametrize("begin", [start, read])
async def test_legs_that_are_given_up_keep_no_memory(tmp_path: Path, begin: Callable[[Legs], Leg]) -> None:
    """gRPC keeps 0.9 KB for each call that `call.cancel()` ends, for ever: 2 MB in each round here."""
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(str(tmp_path / "legs.sock"),))
    server.start()
    legs = Legs(Lines(tmp_path / "legs.sock"))
    legs.lines.resets = lambda: Allowance(1e9, 0, 1e9)
    try:
        kept = [await _memory_after(2000, legs, begin) for _ in range(8)]

        # What is taken for a while comes and goes above what is lost for good.
        assert (min(kept[4:]) - min(kept[:4])) / (4 * 2000) < 400
    finally:
        await legs.close()
        server.kill()
        server.join()


async def _memory_after(times: int, legs: Legs, begin: Callable[[Legs], Leg]) -> int:
    """Bytes that this process takes once so many legs have been given up that were under way."""
    for _ in range(times // 100):
        some = [begin(legs) for _ in range(100)]
        await _is_read(legs)
        for leg in some:
            legs.release(leg)
        await nothing_is_left(legs)
        await _is_read(legs)
    gc.collect()
    found = _mallinfo2()
    return found.uordblks + found.hblkhd


async def _is_read(legs: Legs) -> None:
    """Return when the server has read what was sent to it before."""
    over = asyncio.Event()
    leg = legs.ask(ANSWERED, NOTHING, NO_METADATA, caller="sam", holds=lambda _: True, ended=lambda _: over.set())
    await over.wait()
    legs.release(leg)
