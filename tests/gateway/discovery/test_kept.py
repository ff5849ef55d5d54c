"""The catalog on a disk that does not take it."""

from __future__ import annotations

from tests.eventually import eventually
from tests.gateway.discovery.world import at, contract, honest, serving, small_world


async def test_a_catalog_that_the_disk_does_not_take_is_told_of_and_kept_once_it_does() -> None:
    async with small_world() as world:
        endpoint, in_its_place = at(world.folder), world.folder / "catalog.binpb"
        in_its_place.mkdir()
        async with serving(endpoint.address, honest(contract())):
            world.source.name(endpoint)

            async def is_told() -> None:
                assert "directory" in world.discovery.unkept

            await eventually(is_told)
            in_its_place.rmdir()
            # Nothing else changes meanwhile.
            await world.stored(endpoint.address)

            async def is_over() -> None:
                assert world.discovery.unkept == ""

            await eventually(is_over)
