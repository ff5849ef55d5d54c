"""What /proc says of processes and ports, and how to end what was left behind."""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process for good: a pid alone may by now be another process.

    start_ticks: when it started, in clock ticks since boot.
    """

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this pid now; None if there is none, or it is a zombie."""
        fields = _stat(pid)
        return cls(pid, int(fields[19])) if fields and fields[0] != "Z" else None

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessId.of(self.pid) == self


def cpu_ticks(pid: int) -> int:
    """How long a process has worked, in clock ticks; 0 if there is no such process."""
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if there is no such process."""
    try:
        # The second field, the name, may itself hold spaces and brackets.
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def wait_gone(process: ProcessId, timeout_s: float) -> bool:
    """Wait for a process, ours or not, to end; whether it has."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not process.alive():
            return True
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(handle)


def group_of(pid: int) -> list[ProcessId]:
    """Every process of the process group with this id."""
    return [
        process
        for entry in PROC.iterdir()
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) and int(fields[2]) == pid
        if (process := ProcessId.of(int(entry.name)))
    ]


def in_group(pid: int, group: int) -> bool:
    """Whether a process is of the process group with this id."""
    fields = _stat(pid)
    return bool(fields) and int(fields[2]) == group


def marked(mark: str) -> list[ProcessId]:
    """Every process of ours whose environment holds `mark` (NAME=value), this one left out."""
    wanted = mark.encode()
    found: list[ProcessId] = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0") and (process := ProcessId.of(int(entry.name))):
                found.append(process)
    return found


def end(processes: list[ProcessId], *, grace_s: float) -> None:
    """Ask each process to end, and kill after grace_s those that have not."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    for process in processes:
        if not wait_gone(process, grace_s):
            _signal(process, signal.SIGKILL)
            wait_gone(process, 5)


def _signal(process: ProcessId, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if process.alive():
            os.kill(process.pid, number)


def port_is_free(host: str, port: int) -> bool:
    """Whether somebody could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def port_holder(port: int) -> str:
    """Who listens on a TCP port, as `name (pid 123)`; empty if we may not know."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(PROC / "net" / table, port)}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            for handle in (entry / "fd").iterdir():
                if str(handle.readlink()) in sockets:
                    return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
    return ""


def _listening(table: Path, port: int) -> list[str]:
    """The inodes of the sockets that listen on port, from a table of /proc/net."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port]
