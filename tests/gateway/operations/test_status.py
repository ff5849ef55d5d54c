"""What the gateway tells `llmesh status`, and how it is shown."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any as Untyped

import pytest
from rich.console import Console

from gateway.catalog import CatalogBoard, Endpoint, Report, State, Step
from gateway.operations.status import Facts, status
from gateway.snapshot.build import CLUSTER, Resource
from gateway.xds.publish import Publisher
from llmesh.cli.gateway import Told, print_gateway, print_places
from tests.envoy import tool_of

KEYS = "the keys of issuer `corp` cannot be had from https://corp.example/keys: it answers 503"
SERVICE = "acme.support.v1.Tickets"
STRANGER = "unix:/run/stranger.sock"
WORDS = "Cluster: no such thing as a healthy tool"


@pytest.fixture
async def told() -> Told:
    """Of a mesh with a tool that Envoy refuses, a stranger that is refused, and one endpoint that is held."""
    board = CatalogBoard()
    publisher = Publisher(on_refused=lambda _name, _words: None, on_accepted=lambda _name: None)
    resource = Resource("1", b"")
    await publisher.publish({CLUSTER: {SERVICE: resource}})
    await publisher.refused(CLUSTER, {SERVICE: resource}, WORDS)
    tool = tool_of(SERVICE, "unix:/run/a.sock", contact="tickets@acme.example")
    owner = Step("own", passed=False, service="acme.eng.v1.Evil", reason="NOT_OWNER", message="see ownership.yaml")
    held = Endpoint("unix:/run/gone.sock", "lease")
    await board.post(
        {SERVICE: tool},
        {
            "unix:/run/a.sock": Report(tool.endpoints[0], State.READY),
            held.address: Report(held, State.DOWN, held=True),
            STRANGER: Report(Endpoint(STRANGER, "lease"), State.REFUSED, (owner,)),
        },
    )
    policies: Untyped = SimpleNamespace(error="", stale_keys=[KEYS])
    control: Untyped = SimpleNamespace(
        loaded=SimpleNamespace(policy=SimpleNamespace(bundle=SimpleNamespace(digest="d" * 64)))
    )
    ingest: Untyped = SimpleNamespace(
        fault="database or disk is full", unread_bytes=7, lost=False, shortened=True, disputed=1
    )
    blocks: Untyped = SimpleNamespace(current={"a": 1, "b": 2}, error="disk is full")
    owners = {SERVICE: "support", "acme.eng.v1.Evil": "engineering"}
    facts = Facts(
        *(board, control, publisher, policies),
        owner_of=owners.get,
        mesh_file_fault=lambda: "mesh.yaml:7: `operatons` is not a key here",
        addresses={"operations": "127.0.0.1:8701", "traces": ""},
        ingest=ingest,
        blocks=blocks,
        unkept=lambda: {"the catalog": "", "the leases": "No space left on device"},
    )
    return Told(status(facts), "1.40.0")


def shown(told: Told | None) -> str:
    out = Console(file=io.StringIO(), width=200)
    print_places(out, told, logs="/m/logs")
    print_gateway(out, told)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


async def test_what_is_refused_comes_with_its_reason_and_its_owner(told: Told) -> None:
    lines = shown(told).splitlines()
    [refused] = [line for line in lines if "NOT_OWNER" in line]
    assert "acme.eng.v1.Evil" in refused
    assert "engineering" in refused
    assert "see ownership.yaml" in refused


async def test_what_envoy_refuses_comes_in_its_words_with_whom_to_tell(told: Told) -> None:
    [refused] = [line for line in shown(told).splitlines() if WORDS in line]
    assert refused.startswith(SERVICE)
    assert "support, tickets@acme.example" in refused


async def test_keys_that_could_not_be_fetched_again_are_told_with_their_url(told: Told) -> None:
    assert f"{KEYS}; those from before are in force\n" in shown(told)


async def test_a_mesh_file_that_is_not_taken_up_is_told_with_the_place(told: Told) -> None:
    assert "mesh.yaml:7: `operatons` is not a key here" in shown(told)


async def test_records_that_cannot_be_kept_are_told_with_what_is_unread(told: Told) -> None:
    text = shown(told)
    assert "no records are kept, 7 bytes of the call log behind, calls go on: database or disk is full" in text
    assert "1 call ended otherwise than the rules say" in text
    assert "records were deleted before their time" in text


async def test_it_tells_versions_policy_catalog_and_endpoints(told: Told) -> None:
    text = shown(told)
    assert "Envoy 1.40.0, Python 3." in text
    assert "policy: dddddddddddd\n" in text
    assert "catalog: version 1, 1 tool, 1 contract; endpoints: 1 ready, 1 down, 1 refused, 1 held" in text
    assert "http://127.0.0.1:8701/metrics" in text


async def test_an_envoy_that_is_not_connected_is_told(told: Told) -> None:
    assert "Envoy has no connection to the gateway: calls go on, and nothing new is taken up\n" in shown(told)
    assert "Envoy has no connection" not in shown(Told({**told.facts, "envoys": 1}, "1.40.0"))


async def test_what_the_disk_does_not_take_is_told(told: Told) -> None:
    [line] = [line for line in shown(told).splitlines() if "cannot be kept" in line]
    assert line.startswith("the leases cannot be kept, calls go on: ")
    assert line.endswith(": No space left on device")


def test_a_gateway_that_is_away_is_said_to_be() -> None:
    assert shown(None) == "logs: /m/logs\nthe gateway does not answer\n"


async def test_how_much_is_blocked_is_told(told: Told) -> None:
    lines = shown(told).splitlines()
    assert "2 blocks in force: see llmesh blocks" in lines
    assert "nothing can be blocked or unblocked, what is blocked stays so: disk is full" in lines
