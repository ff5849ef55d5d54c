"""The mesh directory: where the processes of one machine meet.

Everything in it belongs to one user. Who may enter `run/` may register tools,
program Envoy and vouch for callers, so the directory is closed to all others:
that is what makes a Unix socket in it a trusted transport.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "SOCKET_PATH_MAX_BYTES",
    "SUCCEEDS",
    "Home",
    "HomeError",
    "close_directory",
    "write_atomically",
    "write_once",
]

# sun_path holds 108 bytes on Linux and 104 elsewhere, a closing NUL included (unix(7)).
SOCKET_PATH_MAX_BYTES = 103
# Set for a process that is to take the place of one that runs.
SUCCEEDS = "LLMESH_SUCCEEDS"
# Leaves room for "/run/tools/<one letter or more>-1234567.sock".
_HOME_PATH_MAX_BYTES = 76
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_TOOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class HomeError(Exception):
    """The mesh directory cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Home:
    """The mesh directory, by its absolute path. Having one doesn't mean that it exists."""

    path: Path

    @classmethod
    def find(cls, path: str | Path | None = None) -> Home:
        """The directory at path, else at $LLMESH_HOME, else ./.llmesh.

        Raises HomeError if sockets in it would have too long a path.
        """
        found = Path(path or os.environ.get("LLMESH_HOME") or ".llmesh").expanduser().absolute()
        length = len(os.fsencode(found))
        if length > _HOME_PATH_MAX_BYTES:
            message = (
                f"the mesh directory `{found}` has a path of {length} bytes; Unix sockets allow "
                f"{_HOME_PATH_MAX_BYTES} here: set LLMESH_HOME to a shorter one"
            )
            raise HomeError(message)
        return cls(found)

    @classmethod
    def join(cls) -> Home:
        """The directory of the mesh that this process is a part of: $LLMESH_HOME, else ./.llmesh if it is there.

        Raises HomeError if there is none, or it cannot be used.
        """
        told = bool(os.environ.get("LLMESH_HOME"))
        if not told and not Path(".llmesh").exists():
            message = f"no mesh directory at `{Path('.llmesh').absolute()}`: run `llmesh up`, or set LLMESH_HOME"
            raise HomeError(message)
        return cls.find().create()

    def create(self) -> Home:
        """Make the directory and its folders, closed to others; what exists is kept.

        Raises HomeError if it exists and others may enter it.
        """
        for folder in (self.path, self.run, self.tools, self.state, self.keys, self.cache, self.logs):
            close_directory(folder)
        return self

    @property
    def exists(self) -> bool:
        """Whether the directory is there."""
        return self.path.is_dir()

    @property
    def run(self) -> Path:
        """Sockets, for as long as the processes run."""
        return self.path / "run"

    @property
    def registry_socket(self) -> Path:
        """Where the gateway gives out leases."""
        return self.run / "registry.sock"

    @property
    def services_socket(self) -> Path:
        """Where Envoy reaches the gateway's services: catalog, reflection, health."""
        return self.run / "services.sock"

    @property
    def xds_socket(self) -> Path:
        """Where the gateway programs Envoy."""
        return self.run / "xds.sock"

    @property
    def branches_socket(self) -> Path:
        """Where the gateway reaches Envoy, for the branches of fan-outs."""
        return self.run / "branches.sock"

    @property
    def operations_socket(self) -> Path:
        """Where the gateway tells its figures, for Envoy to serve on the operations port."""
        return self.run / "operations.sock"

    @property
    def admin_socket(self) -> Path:
        """Envoy's own administration."""
        return self.run / "admin.sock"

    def own(self, socket: Path, *, pid: int | None = None) -> Path:
        """Where the process pid (this one if None) listens itself, of those that succeed one another at a socket."""
        return socket.with_name(f"{socket.stem}-{os.getpid() if pid is None else pid}.sock")

    @property
    def control_socket(self) -> Path:
        """Where the supervisor is told to restart what it runs."""
        return self.run / "supervisor.sock"

    @property
    def tools(self) -> Path:
        """The folder of the tools' sockets."""
        return self.run / "tools"

    def tool_socket(self, name: str, *, pid: int | None = None) -> Path:
        """Where the process pid (this one if None) serves tools: run/tools/<name>-<pid>.sock.

        A name too long for a socket's path is cut. Raises HomeError if it isn't
        letters, digits, `_`, `-` and `.`, the first one of the first two.
        """
        if not _TOOL_NAME.fullmatch(name):
            message = f"`{name}` cannot name a tool's process: use letters, digits, `_`, `-` and `.`, at most 63"
            raise HomeError(message)
        tail = f"-{os.getpid() if pid is None else pid}.sock"
        room = SOCKET_PATH_MAX_BYTES - len(os.fsencode(self.tools)) - len("/") - len(tail)
        return self.tools / f"{name[: max(room, 1)]}{tail}"

    @property
    def state(self) -> Path:
        """What must outlive processes."""
        return self.path / "state"

    @property
    def leases(self) -> Path:
        """The leases the gateway has given, as JSON."""
        return self.state / "leases.json"

    @property
    def catalog(self) -> Path:
        """The last good catalog."""
        return self.state / "catalog.binpb"

    @property
    def database(self) -> Path:
        """What must last, where the mesh file names no other database."""
        return self.state / "mesh.db"

    @property
    def records(self) -> Path:
        """The decision records, where the mesh file names no other database."""
        return self.state / "records.db"

    @property
    def blocks(self) -> Path:
        """What is blocked, for a gateway that cannot read the database."""
        return self.state / "blocks.json"

    @property
    def port_certificate(self) -> Path:
        """What the mesh port shows, PEM; not there while it speaks no TLS."""
        return self.state / "port.crt.pem"

    @property
    def tls_error(self) -> Path:
        """What is wrong with the files of certificates; not there while nothing is."""
        return self.state / "tls_error.txt"

    @property
    def supervisor(self) -> Path:
        """What `llmesh up` runs, as JSON."""
        return self.state / "supervisor.json"

    @property
    def keys(self) -> Path:
        """Keys: the development issuer's, and those of the mesh's own."""
        return self.path / "keys"

    @property
    def dev_key(self) -> Path:
        """The development issuer's private key, PEM."""
        return self.keys / "dev.key.pem"

    @property
    def dev_jwks(self) -> Path:
        """The development issuer's public keys, a JWKS."""
        return self.keys / "dev.jwks.json"

    def delegation_keys(self, made_s: int) -> Path:
        """The mesh's own keys, a JWKS, made at a time (Unix seconds): the newest file is in force."""
        return self.keys / f"delegation-{made_s:012}.jwks.json"

    @property
    def login(self) -> Path:
        """Who `llmesh login` signed in, as JSON."""
        return self.path / "login.json"

    @property
    def cache(self) -> Path:
        """What can be made again."""
        return self.path / "cache"

    @property
    def tool_vectors(self) -> Path:
        """What tools mean, as a model's vectors."""
        return self.cache / "tools.vectors"

    @property
    def logs(self) -> Path:
        """One log per process, and the call log."""
        return self.path / "logs"

    @property
    def call_log(self) -> Path:
        """A line of JSON for each call, by Envoy."""
        return self.logs / "calls.jsonl"


def close_directory(path: Path) -> None:
    """Make the directory, mode 0700, or make sure that only its owner, this user, may enter it.

    Raises HomeError if it is another user's, or open to others, or no directory:
    an open one is never closed silently, since someone may be in it already.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except (FileExistsError, NotADirectoryError) as err:
        message = f"`{path}` is not a directory"
        raise HomeError(message) from err
    except PermissionError as err:
        message = f"`{path}` cannot be made: permission denied"
        raise HomeError(message) from err
    if not stat.S_ISDIR(found.st_mode):
        message = f"`{path}` is not a directory"
        raise HomeError(message)
    if found.st_uid != os.geteuid():
        message = f"`{path}` belongs to another user"
        raise HomeError(message)
    if found.st_mode & _OTHERS:
        message = f"others may enter `{path}`, so what is in it proves nothing: use a directory with mode 700"
        raise HomeError(message)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the file at path by data, so that a reader sees the old bytes or the new, never a part.

    The new file has exactly this mode, and is on the disk when this returns.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_once(path: Path, data: bytes) -> None:
    """Write a secret file, mode 0600, unless another process has, in the meantime, written its own."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    write_atomically(draft, data)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
