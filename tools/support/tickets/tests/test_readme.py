"""What the README shows is what happens."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import cast

from acme.support.v1 import tickets_pb2 as pb
from acme.support.v1.tickets_pb2_grpc import TicketsStub
from tickets.service import TicketsService
from tickets.store import Store

from llmesh import testing

README = Path(__file__).resolve().parent.parent / "README.md"


async def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    printed: asyncio.Queue[tuple[object, ...]] = asyncio.Queue()

    def show(*words: object) -> None:
        printed.put_nowait(words)

    shown: dict[str, object] = {"print": show}
    exec(compile(source, str(README), "exec"), shown)  # noqa: S102 - our own page
    main = cast("Callable[[str], Coroutine[None, None, None]]", shown["main"])
    store = Store(tmp_path / "tickets.db")
    async with asyncio.timeout(60), testing.run(TicketsService(store)) as tool:
        stub = TicketsStub(tool.channel)
        await stub.CreateTicket(pb.CreateTicketRequest(title="Before"))
        following = asyncio.create_task(main(tool.server.address))
        assert await printed.get() == ("T-1", "Before")
        await stub.CreateTicket(pb.CreateTicketRequest(title="After"))
        assert await printed.get() == (2, "T-2", "After")
        following.cancel()
        await asyncio.wait([following])
    store.close()
