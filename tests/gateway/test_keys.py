"""The keys that sign what tools may call: found again, turned over, and kept from others."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.keys import SETTLE_S, TURN_S, Keys
from llmesh.home import Home
from tests.gateway.fakes import FakeClock
from tests.gateway.turned import turn


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "m").create()


def files(home: Home) -> list[Path]:
    return sorted(home.keys.glob("delegation-*"))


def test_a_gateway_that_starts_anew_finds_the_same_keys(home: Home) -> None:
    clock = FakeClock()

    assert Keys(home, clock).signing().kid == Keys(home, clock).signing().kid
    assert len(files(home)) == 1


def test_nobody_else_can_read_them(home: Home) -> None:
    Keys(home, FakeClock())

    assert [path.stat().st_mode & 0o777 for path in files(home)] == [0o600]


async def test_a_new_key_signs_only_once_envoy_has_had_time_to_take_it_up(home: Home) -> None:
    clock = FakeClock()
    keys = Keys(home, clock)
    first, path = keys.signing().kid, keys.path
    await turn(keys, clock, TURN_S)

    assert keys.path != path
    assert keys.signing().kid == first
    clock.stand_still(SETTLE_S)
    assert keys.signing().kid != first


async def test_a_file_holds_two_keys_and_few_files_are_kept(home: Home) -> None:
    clock = FakeClock()
    keys = Keys(home, clock)
    for _ in range(4):
        await turn(keys, clock, TURN_S)

    assert len(files(home)) == 3
    assert files(home)[-1].read_text().count('"k"') == 2


async def test_another_gateways_newer_keys_are_taken_up(home: Home) -> None:
    clock, later = FakeClock(), FakeClock()
    later.stand_still(1)
    keys = Keys(home, clock)
    other = Keys(home, later)
    await turn(other, later, TURN_S)
    await turn(keys, clock, 0)

    assert (keys.path, keys.signing().kid) == (other.path, other.signing().kid)


def test_a_damaged_file_is_passed_over(home: Home) -> None:
    clock = FakeClock()
    good = Keys(home, clock)
    home.delegation_keys(2000).write_text('{"keys": [{"kty": "oct"}]}')
    home.delegation_keys(3000).write_text("no JSON")

    assert Keys(home, clock).path == good.path
