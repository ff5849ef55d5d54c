import sqlite3
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from acme.support.v1 import tickets_pb2 as pb
from tickets.store import Store
from tickets.ticket import Draft, Filter, Maker

from llmesh.errors import AlreadyExists, Conflict, InvalidCall, NotFound, Unavailable

ADA = Maker("https://id.acme.example", "ada")
EVERYTHING = Filter()
DRAFT = Draft("Cannot sign in", "The page says no.", "Eve Moss", "eve@customer.example", pb.PRIORITY_HIGH)


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    store = Store(tmp_path / "tickets.db", clock=clock, kept_changes=5)
    yield store
    store.close()


def test_a_ticket_is_there_after_the_store_was_closed(tmp_path: Path) -> None:
    first = Store(tmp_path / "tickets.db")
    made = first.create(DRAFT, ADA)
    first.close()
    second = Store(tmp_path / "tickets.db")
    assert second.get(made.number) == made
    second.close()


def test_an_empty_store_is_empty(store: Store) -> None:
    assert store.page(EVERYTHING, limit=10).tickets == []
    assert store.last_sequence() == 0


def test_only_the_owner_may_read_the_files(store: Store, tmp_path: Path) -> None:
    store.create(DRAFT, ADA)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["tickets.db", "tickets.db-shm", "tickets.db-wal"]
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


def test_a_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "tickets.db").close()
    db = sqlite3.connect(tmp_path / "tickets.db")
    db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(sqlite3.DatabaseError, match="version 2"):
        Store(tmp_path / "tickets.db")


def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "tickets.db"
    file.write_text("not a store, but somebody's text " * 40)
    before = file.read_bytes()
    with pytest.raises(sqlite3.DatabaseError):
        Store(file)
    assert file.read_bytes() == before


def test_closing_and_reopening_keep_the_times(store: Store, clock: FakeClock) -> None:
    number = store.create(DRAFT, ADA).number
    clock.now_s = 2_000.0
    closed = store.close_ticket(number, "reset")
    assert (closed.create_us, closed.update_us, closed.close_us) == (10**9, 2 * 10**9, 2 * 10**9)
    clock.now_s = 3_000.0
    opened = store.reopen(number)
    assert (opened.update_us, opened.close_us, opened.resolution) == (3 * 10**9, None, "")


def test_a_closed_ticket_is_not_closed_again_nor_an_open_one_opened(store: Store) -> None:
    number = store.create(DRAFT, ADA).number
    with pytest.raises(Conflict):
        store.reopen(number)
    store.close_ticket(number, "reset")
    with pytest.raises(Conflict, match="closed already"):
        store.close_ticket(number, "again")
    assert store.get(number).resolution == "reset"


def test_a_request_id_makes_one_ticket(store: Store) -> None:
    first = store.create(DRAFT, ADA, request_id="r1")
    assert store.create(DRAFT, ADA, request_id="r1") == first
    assert store.last_sequence() == 1


def test_a_request_id_is_its_makers_own(store: Store) -> None:
    first = store.create(DRAFT, ADA, request_id="r1")
    other = store.create(DRAFT, Maker("https://elsewhere.example", "ada"), request_id="r1")
    assert other.number != first.number


def test_a_request_id_for_other_contents_is_refused(store: Store) -> None:
    store.create(DRAFT, ADA, request_id="r1")
    other = Draft("Another", "", "", "", pb.PRIORITY_LOW)
    with pytest.raises(AlreadyExists, match="T-1"):
        store.create(other, ADA, request_id="r1")


def test_a_repeated_request_does_not_bring_back_a_deleted_ticket(store: Store) -> None:
    store.delete(store.create(DRAFT, ADA, request_id="r1").number)
    with pytest.raises(AlreadyExists, match="deleted"):
        store.create(DRAFT, ADA, request_id="r1")


def test_a_request_id_is_forgotten_after_a_week(store: Store, clock: FakeClock) -> None:
    first = store.create(DRAFT, ADA, request_id="r1")
    clock.now_s += 7 * 24 * 3600 + 1
    store.create(DRAFT, ADA)
    assert store.create(DRAFT, ADA, request_id="r1").number == first.number + 2


def test_a_number_is_never_given_twice(store: Store) -> None:
    first = store.create(DRAFT, ADA).number
    store.delete(first)
    assert store.create(DRAFT, ADA).number == first + 1


def test_nothing_of_a_deleted_ticket_stays_on_disk(store: Store, tmp_path: Path) -> None:
    store.delete(store.create(DRAFT, ADA, request_id="r1").number)
    left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"Eve Moss" not in left
    assert b"eve@customer.example" not in left
    assert b"The page says no." not in left


def test_what_is_not_there_is_not_found(store: Store) -> None:
    calls = [
        lambda: store.get(1),
        lambda: store.delete(1),
        lambda: store.reopen(1),
        lambda: store.close_ticket(1, "reset"),
    ]
    for call in calls:
        with pytest.raises(NotFound, match="T-1"):
            call()
    assert store.last_sequence() == 0


def test_pages_hold_every_ticket_once_the_newest_first(store: Store) -> None:
    for _ in range(7):
        store.create(DRAFT, ADA)
    store.close_ticket(4, "reset")
    is_open = Filter(state=pb.TICKET_STATE_OPEN)
    first = store.page(is_open, limit=4)
    second = store.page(is_open, limit=4, before=first.tickets[-1].number)
    assert [ticket.number for ticket in first.tickets] == [7, 6, 5, 3]
    assert [ticket.number for ticket in second.tickets] == [2, 1]
    assert (first.more, second.more) == (True, False)


def test_changes_come_in_order_with_the_ticket_as_it_is_now(store: Store) -> None:
    kept, gone = store.create(DRAFT, ADA).number, store.create(DRAFT, ADA).number
    store.close_ticket(kept, "reset")
    store.delete(gone)
    changes = store.changes_after(0, limit=10)
    assert [(change.sequence, change.kind, change.number) for change in changes] == [
        (1, pb.CHANGE_KIND_CREATED, kept),
        (2, pb.CHANGE_KIND_CREATED, gone),
        (3, pb.CHANGE_KIND_CLOSED, kept),
        (4, pb.CHANGE_KIND_DELETED, gone),
    ]
    assert [change.ticket for change in changes] == [store.get(kept), None, store.get(kept), None]


def test_a_reader_that_has_fallen_behind_is_told(store: Store) -> None:
    for _ in range(7):
        store.create(DRAFT, ADA)
    assert [change.sequence for change in store.changes_after(2, limit=10)] == [3, 4, 5, 6, 7]
    with pytest.raises(Conflict, match="no longer kept"):
        store.changes_after(1, limit=10)


def test_a_sequence_of_the_future_is_refused(store: Store) -> None:
    with pytest.raises(InvalidCall):
        store.changes_after(1, limit=10)


def test_two_processes_share_one_store_and_one_order(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "tickets.db")
    store.create(DRAFT, ADA)
    other.close_ticket(1, "reset")
    assert [change.sequence for change in store.changes_after(0, limit=10)] == [1, 2]
    other.close()


def test_a_store_that_another_process_holds_is_unavailable(tmp_path: Path) -> None:
    store = Store(tmp_path / "tickets.db", busy_s=0.01)
    other = sqlite3.connect(tmp_path / "tickets.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as raised:
        store.create(DRAFT, ADA)
    assert raised.value.retry_after_s == 1
    other.close()
    assert store.create(DRAFT, ADA).number == 1
    store.close()


def test_many_threads_make_many_tickets(store: Store) -> None:
    together = threading.Barrier(8)

    def make(_: int) -> int:
        together.wait(timeout=60)
        return store.create(DRAFT, ADA).number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(make, range(8))) == list(range(1, 9))
