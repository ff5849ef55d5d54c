"""From the call log to the records: what is new in it every moment, in one thread that may wait for the disk.

Calls never wait for this. While the database takes nothing, the log is what
is kept; once it does again, reading goes on where it had come to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from gateway.clock import Clock
from gateway.policy import Loaded
from gateway.records.floods import Alike, Floods
from gateway.records.judgement import Judge
from gateway.records.logged import Logged, UnreadableLineError, read_line
from gateway.records.store import Made, Records, Turn
from gateway.records.tail import CallLog, Part
from governance.bundle import parse_bundle
from llmesh.document import DocumentError
from llmesh.mesh_file import RecordSettings

log = logging.getLogger(__name__)

# As often as Envoy writes the log.
POLL_S = 0.2
RETRY_FIRST_S, RETRY_LAST_S = 0.2, 5.0
FORGET_EVERY_S = 10.0
DAY_S = 86_400.0
# Bundles that calls logged before this gateway began may have been judged by.
EARLIER_BUNDLES = 8


class Ingest:
    """Keeps the records up with the call log.

    made, counted, broken_lines, failures: counted since the gateway began.
    lost: the log was put aside and deleted before it had been read. shortened:
    records are deleted before their time, for there are too many.
    """

    def __init__(
        self, path: Path, records: Callable[[], Records], judge: Judge, *, settings: RecordSettings, clock: Clock
    ) -> None:
        """path: of the call log. records: opens them; raises SQLAlchemyError while they cannot be."""
        self._path = path
        self._open = records
        self._judge = judge
        self._settings = settings
        self._floods = Floods(settings.refused_per_minute)
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "records")
        self._log = CallLog(path)
        # None until they could first be opened.
        self.records: Records | None = None
        self._gone: frozenset[str] = frozenset()
        self._in_force: list[tuple[int, Loaded]] = []
        self._forgot_s = clock.monotonic_s()
        self.made = 0
        # Calls that have no record of their own, but are counted in another's.
        self.counted = 0
        self.shortened = False
        self.broken_lines = 0
        self.failures = 0
        self.lost = False
        self.unread_bytes = 0
        # Why nothing is kept at present; empty if it is.
        self.fault = ""

    @property
    def disputed(self) -> int:
        """Calls that ended otherwise than the rules say, as far as they are known."""
        return self._judge.disputed

    def in_force(self, loaded: Loaded) -> None:
        """This policy is in force from now on."""
        self._in_force.append((int(self._clock.unix_s() * 1e6), loaded))

    async def run(self) -> None:
        """Until cancelled."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                more = await asyncio.get_running_loop().run_in_executor(self._thread, self.step)
            except (SQLAlchemyError, OSError) as err:
                self._failed(err)
                await self._clock.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_LAST_S)
                continue
            wait_s = RETRY_FIRST_S
            if self.fault:
                log.info("records are kept again", extra={"made": self.made})
                self.fault = ""
            if not more:
                await self._clock.sleep(POLL_S)

    def _failed(self, err: SQLAlchemyError | OSError) -> None:
        # Without the statement, which holds what was to be kept.
        words = str(getattr(err, "orig", None) or err)
        self.failures += 1
        if words != self.fault:
            log.error("no records are kept; calls go on, and are recorded once this is mended", extra={"error": words})
        self.fault = words

    def step(self) -> bool:
        """Keep what is new; whether there is more. Raises SQLAlchemyError or OSError: what was read is read again."""
        try:
            return self._step()
        except (SQLAlchemyError, OSError):
            self._log = CallLog(self._path)
            self._floods = Floods(self._settings.refused_per_minute)
            raise

    def _step(self) -> bool:
        if self.records is None:
            self.records = self._begin()
        self._note_policies(self.records)
        self._forget_old(self.records)
        if not self._log.changed():
            self.unread_bytes = 0
            return False
        with self.records.turn() as turn:
            parts = list(self._log.unread(turn.positions))
            made, counted = self._keep(turn, [logged for part in parts for logged in self._logged(part)])
            for part in parts:
                turn.move(part.file, part.read_bytes)
            self._look_for_gaps(turn)
        self.made += made
        self.counted += counted
        self.unread_bytes = sum(part.unread_bytes for part in parts)
        return self.unread_bytes > 0

    def _begin(self) -> Records:
        records = self._open()
        for since_us, texts in records.bundles(EARLIER_BUNDLES):
            domains = {name: text for name, text in texts.items() if name.startswith("domains/")}
            try:
                self._judge.in_force(since_us, parse_bundle(texts["mesh.yaml"], domains))
            except (DocumentError, LookupError):
                # Of an earlier version of the gateway.
                log.info("calls of an earlier policy are not judged", extra={"since_us": since_us})
        return records

    def _note_policies(self, records: Records) -> None:
        while self._in_force:
            since_us, loaded = self._in_force[0]
            records.in_force(loaded.policy.bundle.digest, since_us, loaded.rules)
            self._judge.in_force(since_us, loaded.policy.bundle)
            del self._in_force[0]

    def _keep(self, turn: Turn, read: Sequence[Logged]) -> tuple[int, int]:
        """Keep these calls; how many have a record, and how many are counted in another's."""
        made: list[Made] = []
        counted: dict[Alike, list[Logged]] = {}
        for logged in read:
            alike = self._floods.counted_as(logged)
            if alike is None:
                made.append(Made(logged, self._judge.judge(logged)))
            else:
                counted.setdefault(alike, []).append(logged)
        for alike, calls in counted.items():
            if not turn.count(self._floods.counting.get(alike, 0), len(calls)):
                self._floods.counting[alike] = turn.next_id + len(made)
                made.append(Made(calls[0], self._judge.judge(calls[0]), len(calls)))
        turn.add(made)
        return len(made), len(read) - len(made)

    def _logged(self, part: Part) -> Iterator[Logged]:
        for line in part.lines:
            logged = self._read(line)
            if logged is not None:
                yield logged

    def _read(self, line: bytes) -> Logged | None:
        try:
            return read_line(line)
        except UnreadableLineError:
            self.broken_lines += 1
            log.error("a line of the call log is broken", extra={"bytes": len(line)})  # noqa: TRY400 what it holds may be anything
        # An Envoy that was killed may have left half a line, and the next one's first call stands behind it.
        # Within a value, a quotation mark is escaped.
        begins = line.rfind(b'{"')
        try:
            return read_line(line[begins:]) if begins > 0 else None
        except UnreadableLineError:
            return None

    def _look_for_gaps(self, turn: Turn) -> None:
        """Forget files that are gone for good. If all are that were read, calls may have been logged since."""
        known, there = frozenset(turn.positions), self._log.files
        if known and there and not known & there:
            self.lost = True
            log.error("the call log was put aside before it was read: records of calls are missing")
        gone = known - there
        # One that is just being renamed can be missed once.
        turn.forget(gone & self._gone)
        self._gone = gone

    def _forget_old(self, records: Records) -> None:
        """Some at a time, lest new ones wait: the rest when it is next looked."""
        now_s = self._clock.monotonic_s()
        if now_s - self._forgot_s < FORGET_EVERY_S:
            return
        too_many = records.forget_beyond(self._settings.keep_at_most)
        if too_many and not self.shortened:
            log.error("records are deleted before their time, for there are too many", extra={"deleted": too_many})
        if not too_many and not records.forget_before(
            int((self._clock.unix_s() - self._settings.keep_days * DAY_S) * 1e6)
        ):
            self._forgot_s = now_s
        self.shortened = self.shortened or bool(too_many)
