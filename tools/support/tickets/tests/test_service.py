# ruff: noqa: RUF001 - digits that are no ASCII are what is tested
import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from acme.support.v1 import tickets_pb2 as pb
from acme.support.v1.tickets_pb2_grpc import TicketsStub
from tickets.service import TicketsService
from tickets.store import Store
from tickets.ticket import Change

from llmesh import AlreadyExists, Caller, Conflict, InvalidCall, NotFound, testing

ADA = Caller(issuer="https://id.acme.example", subject="ada")
BOB = Caller(issuer="https://id.acme.example", subject="bob")
SIGN_IN = pb.CreateTicketRequest(
    title="Cannot sign in",
    description="The page says that the password is wrong.",
    reporter=pb.Reporter(name="Eve Moss", email="eve@customer.example"),
    priority=pb.PRIORITY_HIGH,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "tickets.db", kept_changes=150)


@pytest_asyncio.fixture
async def tool(store: Store) -> AsyncIterator[testing.ToolUnderTest]:
    try:
        async with testing.run(TicketsService(store), caller=ADA) as tool:
            yield tool
    finally:
        store.close()


async def test_a_ticket_is_made_in_the_callers_name(tool: testing.ToolUnderTest) -> None:
    ticket = (await TicketsStub(tool.as_(BOB)).CreateTicket(SIGN_IN)).ticket
    assert (ticket.id, ticket.created_by) == ("T-1", "bob")
    assert (ticket.state, ticket.priority) == (pb.TICKET_STATE_OPEN, pb.PRIORITY_HIGH)
    assert ticket.reporter == SIGN_IN.reporter
    assert (await TicketsStub(tool.channel).GetTicket(pb.GetTicketRequest(id="T-1"))).ticket == ticket


async def test_a_ticket_without_a_priority_is_normal_and_without_a_reporter_has_none(
    tool: testing.ToolUnderTest,
) -> None:
    ticket = (await TicketsStub(tool.channel).CreateTicket(pb.CreateTicketRequest(title="Odd noise"))).ticket
    assert ticket.priority == pb.PRIORITY_NORMAL
    assert not ticket.HasField("reporter")
    assert not ticket.HasField("close_time")


async def test_a_ticket_is_closed_opened_again_and_deleted(tool: testing.ToolUnderTest) -> None:
    stub = TicketsStub(tool.channel)
    await stub.CreateTicket(SIGN_IN)
    closed = (await stub.CloseTicket(pb.CloseTicketRequest(id="T-1", resolution="Reset."))).ticket
    assert (closed.state, closed.resolution) == (pb.TICKET_STATE_CLOSED, "Reset.")
    assert closed.close_time == closed.update_time
    opened = (await stub.ReopenTicket(pb.ReopenTicketRequest(id="T-1"))).ticket
    assert (opened.state, opened.resolution) == (pb.TICKET_STATE_OPEN, "")
    await stub.DeleteTicket(pb.DeleteTicketRequest(id="T-1"))
    with pytest.raises(NotFound) as raised:
        await stub.GetTicket(pb.GetTicketRequest(id="T-1"))
    assert raised.value.resource == ("ticket", "T-1")


async def test_a_repeated_call_with_a_request_id_makes_no_second_ticket(tool: testing.ToolUnderTest) -> None:
    stub = TicketsStub(tool.channel)
    request = pb.CreateTicketRequest(title="Cannot sign in", request_id="r1")
    first, second = await asyncio.gather(stub.CreateTicket(request), stub.CreateTicket(request))
    assert first == second
    with pytest.raises(AlreadyExists):
        await stub.CreateTicket(pb.CreateTicketRequest(title="Another", request_id="r1"))
    assert (await TicketsStub(tool.as_(BOB)).CreateTicket(request)).ticket.id == "T-2"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        pytest.param(pb.CreateTicketRequest(), "title", id="no title"),
        pytest.param(pb.CreateTicketRequest(title=" \n"), "title", id="blank title"),
        pytest.param(pb.CreateTicketRequest(title="x" * 201), "title", id="long title"),
        pytest.param(pb.CreateTicketRequest(title="x", description="x" * 20_001), "description", id="long description"),
        pytest.param(pb.CreateTicketRequest(title="x", reporter=pb.Reporter(email="me")), "reporter.email", id="email"),
        pytest.param(pb.CreateTicketRequest(title="x", priority=99), "priority", id="unknown priority"),  # pyright: ignore[reportArgumentType]: what a newer client may send
    ],
)
async def test_a_bad_request_says_which_field(
    tool: testing.ToolUnderTest, request_: pb.CreateTicketRequest, field: str
) -> None:
    with pytest.raises(InvalidCall) as raised:
        await TicketsStub(tool.channel).CreateTicket(request_)
    assert [violation.field for violation in raised.value.violations] == [field]


@pytest.mark.parametrize("ticket_id", ["", "1", "T-0", "T-01", "T--1", "T-1\n", "t-1", "T-9999999999999999999", "T-١"])
async def test_a_bad_id_is_a_bad_call(tool: testing.ToolUnderTest, ticket_id: str) -> None:
    with pytest.raises(InvalidCall):
        await TicketsStub(tool.channel).GetTicket(pb.GetTicketRequest(id=ticket_id))


async def test_pages_hold_every_ticket_once(tool: testing.ToolUnderTest) -> None:
    stub = TicketsStub(tool.channel)
    for number in range(5):
        await stub.CreateTicket(pb.CreateTicketRequest(title=f"Ticket {number}"))
    request = pb.ListTicketsRequest(state=pb.TICKET_STATE_OPEN, page_size=2)
    pages: list[list[str]] = []
    while not pages or request.page_token:
        page = await stub.ListTickets(request)
        pages.append([ticket.id for ticket in page.tickets])
        request.page_token = page.next_page_token
    assert pages == [["T-5", "T-4"], ["T-3", "T-2"], ["T-1"]]


async def test_a_page_token_of_another_list_is_a_bad_call(tool: testing.ToolUnderTest) -> None:
    forged = "MS4xLjA"
    with pytest.raises(InvalidCall) as raised:
        await TicketsStub(tool.channel).ListTickets(pb.ListTicketsRequest(page_token=forged))
    assert [violation.field for violation in raised.value.violations] == ["page_token"]


async def test_a_list_says_nothing_of_people(tool: testing.ToolUnderTest) -> None:
    stub = TicketsStub(tool.channel)
    await stub.CreateTicket(SIGN_IN)
    listed = (await stub.ListTickets(pb.ListTicketsRequest())).SerializeToString()
    assert b"Cannot sign in" in listed
    assert not any(word in listed for word in (b"Eve", b"customer.example", b"password", b"ada"))


async def test_a_watcher_hears_of_changes_as_they_come(tool: testing.ToolUnderTest) -> None:
    stub = TicketsStub(tool.channel)
    await stub.CreateTicket(pb.CreateTicketRequest(title="Before"))
    watch = stub.WatchTickets(pb.WatchTicketsRequest())
    await watch.initial_metadata()
    await stub.CreateTicket(SIGN_IN)
    await stub.CloseTicket(pb.CloseTicketRequest(id="T-2", resolution="Reset."))
    await stub.DeleteTicket(pb.DeleteTicketRequest(id="T-1"))
    heard = await _hear(watch, 3)
    assert [(change.sequence, change.kind, change.ticket_id) for change in heard] == [
        (2, pb.CHANGE_KIND_CREATED, "T-2"),
        (3, pb.CHANGE_KIND_CLOSED, "T-2"),
        (4, pb.CHANGE_KIND_DELETED, "T-1"),
    ]
    assert not heard[2].HasField("ticket")
    watch.cancel()


async def test_a_watch_from_a_lists_sequence_misses_nothing(tool: testing.ToolUnderTest) -> None:
    stub = TicketsStub(tool.channel)
    listed = await stub.ListTickets(pb.ListTicketsRequest())
    await stub.CreateTicket(SIGN_IN)
    watch = stub.WatchTickets(pb.WatchTicketsRequest(after_sequence=listed.sequence))
    heard = await _hear(watch, 1)
    assert [change.ticket.title for change in heard] == ["Cannot sign in"]
    watch.cancel()


async def test_a_watcher_hears_of_another_processs_changes(tool: testing.ToolUnderTest, tmp_path: Path) -> None:
    watch = TicketsStub(tool.channel).WatchTickets(pb.WatchTicketsRequest())
    await watch.initial_metadata()
    other = Store(tmp_path / "tickets.db")
    async with testing.run(TicketsService(other)) as same_store:
        await TicketsStub(same_store.channel).CreateTicket(SIGN_IN)
        heard = await _hear(watch, 1)
    assert [change.ticket_id for change in heard] == ["T-1"]
    other.close()
    watch.cancel()


class Counted(Store):
    """Counts how often it is read, and says when it has been looked at for changes often."""

    def __init__(self, path: Path, *, often: int) -> None:
        super().__init__(path)
        self._loop = asyncio.get_running_loop()
        self._looks_left = often
        self.read_count = 0
        self.was_looked_at_often = asyncio.Event()

    def last_sequence(self) -> int:
        self._looks_left -= 1
        if not self._looks_left:
            self._loop.call_soon_threadsafe(self.was_looked_at_often.set)
        return super().last_sequence()

    def changes_after(self, sequence: int, *, limit: int) -> Sequence[Change]:
        self.read_count += 1
        return super().changes_after(sequence, limit=limit)


async def test_watchers_who_hear_nothing_read_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickets.service._LOOK_AGAIN_S", 0.001)
    store = Counted(tmp_path / "tickets.db", often=50)
    async with testing.run(TicketsService(store)) as tool, asyncio.timeout(60):
        stub = TicketsStub(tool.channel)
        watches = [stub.WatchTickets(pb.WatchTicketsRequest(after_sequence=0)) for _ in range(5)]
        for watch in watches:
            await watch.initial_metadata()
        await store.was_looked_at_often.wait()
        # Once to begin with, and once at the first look of all.
        assert store.read_count <= 2 * len(watches)
        for watch in watches:
            watch.cancel()
    store.close()


async def test_nobody_looks_for_changes_once_nobody_watches(tool: testing.ToolUnderTest) -> None:
    for _ in range(2):
        watch = TicketsStub(tool.channel).WatchTickets(pb.WatchTicketsRequest())
        await watch.initial_metadata()
        watch.cancel()
        async with asyncio.timeout(60):
            while looking := [task for task in asyncio.all_tasks() if task.get_name() == "tickets: look"]:
                await asyncio.wait(looking)


async def test_a_watcher_that_has_fallen_behind_is_told_where_to_start_again(tool: testing.ToolUnderTest) -> None:
    stub = TicketsStub(tool.channel)
    for _ in range(151):
        await stub.CreateTicket(pb.CreateTicketRequest(title="x"))
    with pytest.raises(Conflict) as raised:
        await anext(aiter(stub.WatchTickets(pb.WatchTicketsRequest(after_sequence=0))))
    assert (raised.value.reason, raised.value.metadata["last_sequence"]) == ("CHANGES_GONE", "151")


async def test_a_watch_from_the_future_is_a_bad_call(tool: testing.ToolUnderTest) -> None:
    with pytest.raises(InvalidCall):
        await anext(aiter(TicketsStub(tool.channel).WatchTickets(pb.WatchTicketsRequest(after_sequence=1))))


async def test_a_long_watch_comes_in_order_and_whole(tool: testing.ToolUnderTest) -> None:
    stub = TicketsStub(tool.channel)
    for _ in range(140):
        await stub.CreateTicket(pb.CreateTicketRequest(title="x"))
    watch = stub.WatchTickets(pb.WatchTicketsRequest(after_sequence=0))
    heard = await _hear(watch, 140)
    assert [change.sequence for change in heard] == list(range(1, 141))
    watch.cancel()


async def _hear(watch: AsyncIterable[pb.WatchTicketsResponse], count: int) -> list[pb.WatchTicketsResponse]:
    """The next changes, without asking for one more."""
    changes = aiter(watch)
    async with asyncio.timeout(60):
        return [await anext(changes) for _ in range(count)]
