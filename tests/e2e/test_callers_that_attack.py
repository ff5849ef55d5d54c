"""Whatever a caller sends, it is answered as it must be, and no other call fails."""

from __future__ import annotations

from tests.e2e.mesh import RunningMesh
from tests.hostile.attack import CASES, attack


def test_each_attack_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]

    assert len(CASES) >= 60
    assert sorted(names) == sorted(set(names))


async def test_every_attack_is_answered_as_it_must_be_and_harms_no_other_call(mesh: RunningMesh) -> None:
    harm = await attack(mesh)

    assert harm.unlike == ()
    assert harm.failures == ()
    assert harm.good_calls > harm.cases
