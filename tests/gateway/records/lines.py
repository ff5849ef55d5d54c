"""Lines of the call log as Envoy writes them, and a small mesh to make records of them."""

from __future__ import annotations

import json
import resource
import signal
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine

from gateway.catalog import Tool
from gateway.database import open_database
from gateway.records.ingest import Ingest
from gateway.records.judgement import Judge
from gateway.records.store import TABLES, Filter, Record, Records
from governance.bundle import parse_bundle
from llmesh.mesh_file import RecordSettings
from tests.envoy import READS, tool_of
from tests.gateway.fakes import FakeClock

SERVICE = "acme.support.v1.Tickets"
# As tests/envoy.py has it.
CONTRACT = "digest"
DENIED = "rbac_access_denied_matched_policy[{}]"
ENDED = {
    "code": "OK",
    "details": "via_upstream",
    "flags": "-",
    "duration_ms": 3,
    "bytes_in": 5,
    "bytes_out": 7,
    "provenance": None,
    "provenance_of_error": None,
}


def fields(**changed: object) -> dict[str, object]:
    """Of a call that sam made and the tool answered. phase: of its start."""
    known: dict[str, object] = {
        "actor": "",
        "address": "127.0.0.1",
        "call_id": str(uuid.uuid4()),
        "caller": "sam",
        "clearances": "",
        "contract": CONTRACT,
        "domain": "support",
        "issuer": "corp",
        "parent": None,
        "path": f"/{SERVICE}/Get",
        "roles": "agent,editor",
        "time": "2026-01-31T12:00:00.250Z",
        **({} if "phase" in changed else ENDED),
    }
    return known | changed


def line(**changed: object) -> bytes:
    """The same as Envoy writes it."""
    return json.dumps(fields(**changed)).encode() + b"\n"


@dataclass(slots=True)
class Kept:
    """A call log in a folder, and what makes records of it."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    engine: Engine | None = None
    settings: RecordSettings = field(default_factory=RecordSettings)

    @property
    def path(self) -> Path:
        """The newest file of the log."""
        return self.folder / "calls.jsonl"

    def log(self, *lines: bytes) -> None:
        """Envoy writes these."""
        with self.path.open("ab") as file:
            file.write(b"".join(lines))

    def open(self) -> Records:
        """The records, in SQLite."""
        self.engine = self.engine or open_database(f"sqlite:///{self.folder}/records.db", TABLES)
        return Records(self.engine)

    def ingest(self, *tools: Tool) -> Ingest:
        """A gateway's part that makes records; on its mesh are these tools, or one that sam may read of."""
        known = {tool.service: tool for tool in tools or (tool_of(SERVICE, "unix:/run/a.sock"),)}
        judge = Judge(known.get)
        judge.in_force(0, parse_bundle(READS, {}))
        return Ingest(self.path, self.open, judge, settings=self.settings, clock=self.clock)

    def records(self, wanted: Filter | None = None) -> list[Record]:
        """All of them, oldest first."""
        return self.open().after(wanted or Filter(), after=0, limit=1_000_000)

    def call_ids(self) -> list[str]:
        """Of all records, in order."""
        return [record.logged.call_id for record in self.records()]


def caught_up(ingest: Ingest) -> None:
    """Everything that is in the log is in the records."""
    while ingest.step():
        pass


@contextmanager
def full_disk() -> Generator[None]:
    """No file of ours can grow."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handled)
