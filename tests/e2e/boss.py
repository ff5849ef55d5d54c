"""A supervisor with faults to order: `python -m tests.e2e.boss HOME MESH_FILE PATIENCE_S TOOL...`.

Each tool is an echo. It runs what `llmesh up` runs, but is as patient with what hangs as it is told, and less with
what is open through an Envoy that leaves, starts the gateway of odd_gateway.py, and stands between Envoy and the
gateway: while HOME/cut exists, there is no connection between them. The wall clock of a tool is off by what
HOME/NAME.clock says, in seconds with a sign.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from libfaketime import get_reload_information  # pyright: ignore[reportMissingTypeStubs] it has none

from llmesh.home import Home
from llmesh.supervisor import plan
from llmesh.supervisor.program import Program
from llmesh.supervisor.supervise import Supervisor, held

HERE = Path(__file__).resolve().parent
ECHO_FOLDER = HERE.parent / "tools/echo"
POLL_S = 0.02


def programs(home: Home, mesh_file: Path, tools: list[str], *, patience_s: float) -> list[Program]:
    """What the mesh runs."""
    gateway = plan.gateway(home, mesh_file)
    odd = (sys.executable, "-P", str(HERE / "odd_gateway.py"), str(home.path))
    gateway = replace(gateway, argv=(*odd, *gateway.argv[gateway.argv.index("--home") :]))
    envoy = plan.envoy(home)
    envoy = replace(envoy, argv=tuple("5" if each == str(plan.OPEN_STREAMS_S) else each for each in envoy.argv))
    echoes = [plan.tool(home, name, argv=(sys.executable, "-m", "echo_tool"), cwd=ECHO_FOLDER) for name in tools]
    settable = [with_clock(home, each) for each in echoes]
    return [replace(each, patience_s=patience_s) for each in (gateway, envoy, *settable)]


def with_clock(home: Home, program: Program) -> Program:
    """The program by a wall clock that can be set; what measures how long something takes goes on as it did.

    Not for Envoy, which hangs at its start with the library that does this.
    """
    clock = home.path / f"{program.name}.clock"
    clock.write_text("+0")
    preloaded = {name: value for name, value in get_reload_information()[1].items() if os.environ.get(name) != value}
    settings = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1"}
    del preloaded["FAKETIME_NO_CACHE"]
    return replace(program, env={**program.env, **preloaded, **settings})


@asynccontextmanager
async def link(home: Home) -> AsyncGenerator[str]:
    """The socket by which Envoy reaches the gateway."""
    cut = home.path / "cut"

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            if not cut.exists():
                there, back = await asyncio.open_unix_connection(home.xds_socket)
                ways = (_pass_on(reader, back), _pass_on(there, writer), _exists(cut))
                tasks = [asyncio.create_task(way) for way in ways]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                back.close()
        writer.close()

    path = str(home.run / "link.sock")
    async with await asyncio.start_unix_server(serve, path):
        yield path


async def _exists(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110 nothing tells us
        await asyncio.sleep(POLL_S)


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


async def main() -> None:
    """Run the mesh until SIGTERM."""
    home, mesh_file, patience_s, *tools = Home.find(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]
    plan.write_bootstrap(home, mesh_file)
    async with link(home) as path:
        bootstrap = home.state / "envoy.json"
        bootstrap.write_text(bootstrap.read_text().replace(str(home.xds_socket), path))
        intended = programs(home, mesh_file, tools, patience_s=patience_s)
        address = plan.read(home, mesh_file).address
        boss = Supervisor(home, intended, address=address, mesh_file=mesh_file, sink=lambda _name, _line: None)
        with held(home):
            await boss.run()


if __name__ == "__main__":
    asyncio.run(main())
