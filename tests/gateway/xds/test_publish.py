"""What the publisher promises, without Envoy."""

from __future__ import annotations

import asyncio

from gateway.snapshot.build import CLUSTER, ROUTES, Resource
from gateway.xds.publish import Publisher, Stale

OLD, BAD, GOOD = Resource("1", b"old"), Resource("2", b"bad"), Resource("3", b"good")
NAME = "acme.support.v1.Tickets"
SILENT_S = 1.0


class Told:
    """What the publisher told the tool's owner, in order."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.publisher = Publisher(
            on_refused=lambda name, words: self.words.append(f"{name} refused: {words}"),
            on_accepted=lambda name: self.words.append(f"{name} accepted"),
        )

    async def publish(self, resource: Resource | None) -> None:
        await self.publisher.publish({ROUTES: {NAME: resource} if resource else {}, CLUSTER: {NAME: OLD}})

    def wanted(self) -> Resource | None:
        return self.publisher.wanted(ROUTES).get(NAME)


async def test_what_is_refused_goes_back_to_the_last_accepted() -> None:
    told = Told()
    await told.publish(OLD)
    await told.publisher.accepted(ROUTES, {NAME: OLD})
    await told.publish(BAD)

    await told.publisher.refused(ROUTES, {NAME: BAD}, "no such thing")

    assert told.wanted() == OLD
    assert told.publisher.wanted(CLUSTER)[NAME] == OLD
    assert told.words == [f"{NAME} refused: no such thing"]


async def test_where_the_version_to_go_back_to_is_refused_too_nothing_is_wanted_and_the_newest_is_blamed() -> None:
    told = Told()
    await told.publish(OLD)
    await told.publisher.accepted(ROUTES, {NAME: OLD})
    await told.publish(BAD)
    await told.publisher.refused(ROUTES, {NAME: BAD}, "no such thing")

    await told.publisher.refused(ROUTES, {NAME: OLD}, "not any more")

    assert told.wanted() is None
    assert told.words == [f"{NAME} refused: no such thing"]
    assert told.publisher.refusals == [(ROUTES, NAME, "no such thing")]
    assert told.publisher.refused_names == {NAME: False}
    await told.publish(GOOD)
    assert told.wanted() == GOOD


async def test_what_was_never_accepted_goes_away() -> None:
    told = Told()
    await told.publish(BAD)

    await told.publisher.refused(ROUTES, {NAME: BAD}, "no")

    assert told.wanted() is None


async def test_a_tool_that_is_mended_is_reported_once_envoy_takes_it() -> None:
    told = Told()
    await told.publish(BAD)
    await told.publisher.refused(ROUTES, {NAME: BAD}, "no")
    await told.publish(GOOD)
    assert told.wanted() == GOOD

    await told.publisher.accepted(ROUTES, {NAME: GOOD})
    await told.publisher.accepted(ROUTES, {NAME: GOOD})

    assert told.words == [f"{NAME} refused: no", f"{NAME} accepted"]


async def test_going_back_to_the_last_accepted_mends_nothing_by_itself() -> None:
    told = Told()
    await told.publish(OLD)
    await told.publisher.accepted(ROUTES, {NAME: OLD})
    await told.publish(BAD)
    await told.publisher.refused(ROUTES, {NAME: BAD}, "no")

    await told.publisher.accepted(ROUTES, {NAME: OLD})

    assert told.words == [f"{NAME} refused: no"]
    assert told.wanted() == OLD


async def test_a_tool_that_is_put_back_as_it_was_is_reported_too() -> None:
    told = Told()
    await told.publish(OLD)
    await told.publisher.accepted(ROUTES, {NAME: OLD})
    await told.publish(BAD)
    await told.publisher.refused(ROUTES, {NAME: BAD}, "no")

    await told.publish(OLD)

    assert told.words == [f"{NAME} refused: no", f"{NAME} accepted"]


async def test_what_was_removed_is_forgotten() -> None:
    told = Told()
    await told.publish(OLD)
    await told.publisher.accepted(ROUTES, {NAME: OLD})
    await told.publish(None)
    await told.publish(BAD)

    await told.publisher.refused(ROUTES, {NAME: BAD}, "no")

    assert told.wanted() is None


async def test_an_envoy_that_connects_again_has_accepted_what_it_holds() -> None:
    told = Told()
    await told.publish(OLD)
    await told.publisher.held(ROUTES, {NAME: OLD.version, "gone": "7"})
    await told.publish(BAD)

    await told.publisher.refused(ROUTES, {NAME: BAD}, "no")

    assert told.wanted() == OLD


async def test_nobody_has_caught_up_before_an_envoy_says_so() -> None:
    told = Told()
    await told.publish(OLD)

    assert not await told.publisher.caught_up(within_s=0.01)
    await told.publisher.served(told.publisher.revision)
    assert await told.publisher.caught_up(within_s=0.01)


async def answers(told: Told, *, for_s: float) -> None:
    """An Envoy takes one thing after another for so long."""
    ends_s = asyncio.get_running_loop().time() + for_s
    while asyncio.get_running_loop().time() < ends_s:
        await told.publisher.accepted(CLUSTER, {NAME: OLD})
        await asyncio.sleep(0)


async def test_an_envoy_that_goes_on_answering_is_waited_for_however_long_it_takes() -> None:
    told = Told()
    await told.publish(OLD)
    waiting = asyncio.create_task(told.publisher.settled(silent_s=SILENT_S))
    await answers(told, for_s=2 * SILENT_S)
    assert not waiting.done()

    await told.publisher.served(told.publisher.revision)

    assert await waiting


async def test_an_envoy_that_falls_silent_is_waited_for_no_longer() -> None:
    told = Told()
    await told.publish(OLD)
    await answers(told, for_s=0)

    assert not await told.publisher.settled(silent_s=0.01)


def seen(stale: Stale) -> dict[str, list[str]]:
    """What a follower has to look at, which it has done then."""
    found = {url: list(names) for url, names in stale.items() if names}
    for names in stale.values():
        names.clear()
    return found


async def test_a_follower_hears_of_everything_first_and_then_only_of_what_changed() -> None:
    told = Told()
    others = {f"acme.support.v1.T{number}": OLD for number in range(100)}
    await told.publisher.publish({ROUTES: {**others, NAME: OLD}, CLUSTER: others})

    with told.publisher.follow() as stale:
        assert seen(stale) == {ROUTES: [*others, NAME], CLUSTER: [*others]}

        await told.publisher.publish({ROUTES: {**others, NAME: OLD}, CLUSTER: others})
        assert seen(stale) == {}

        await told.publisher.publish({ROUTES: {**others, NAME: BAD}, CLUSTER: {**others, "acme.support.v1.New": OLD}})
        assert seen(stale) == {ROUTES: [NAME], CLUSTER: ["acme.support.v1.New"]}

        await told.publisher.publish({ROUTES: others, CLUSTER: others})
        assert seen(stale) == {ROUTES: [NAME], CLUSTER: ["acme.support.v1.New"]}

    await told.publisher.publish({ROUTES: {}, CLUSTER: {}})
    assert seen(stale) == {}


async def test_a_follower_hears_of_what_is_refused_and_of_what_is_mended() -> None:
    told = Told()
    await told.publish(OLD)
    await told.publisher.accepted(ROUTES, {NAME: OLD})
    await told.publish(BAD)

    with told.publisher.follow() as stale:
        seen(stale)
        await told.publisher.refused(ROUTES, {NAME: BAD}, "no")
        assert seen(stale) == {ROUTES: [NAME]}
        assert told.publisher.wanted_of(ROUTES, NAME) == OLD

        await told.publish(GOOD)
        seen(stale)
        await told.publisher.accepted(ROUTES, {NAME: GOOD})
        assert seen(stale) == {ROUTES: [NAME]}
        assert told.publisher.wanted_of(ROUTES, NAME) == GOOD
