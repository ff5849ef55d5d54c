"""What passages mean, learnt while the model server comes, goes, lies and is replaced."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import llmesh
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.retrieval import Meanings, Passages
from llmesh.retrieval.meanings import BATCH, LEARNING, PARTLY, PAUSE_S, REST, UNLEARNT
from llmesh.retrieval.nearest import Nearest, StoppedError, Vector
from tests.eventually import eventually
from tests.llmesh.retrieval.world import TEXTS, World, world

LIES: dict[str, Callable[[pb.EmbedResponse], None]] = {
    "no number": lambda response: response.vectors[0].values.__setitem__(0, math.nan),
    "infinite": lambda response: response.vectors[0].values.__setitem__(0, math.inf),
    "too long": lambda response: response.vectors[0].values.__setitem__(0, 1e30),
    "zero": lambda response: response.vectors[0].values.__setitem__(slice(0, 4), [0.0] * 4),
    "another dimension": lambda response: response.vectors[0].values.append(0),
    "empty": lambda response: response.vectors[0].values.__delitem__(slice(0, 4)),
    "one too few": lambda response: response.vectors.__delitem__(0),
    "one too many": lambda response: response.vectors.append(response.vectors[0]),
    "random weights": lambda response: setattr(response.provenance, "is_placeholder", True),
}


async def test_passages_are_found_by_what_they_mean(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh, mesh.meanings() as meanings:
        assert mesh.found(await mesh.learnt(meanings, "hound"))[0] == "a dog barks"
        assert mesh.found(await mesh.learnt(meanings, "kitten"))[0] == "a cat purrs"
        assert (await mesh.learnt(meanings)).provenance == {"model": "toy 1 sha256:0 4"}


async def test_words_alone_decide_until_all_is_learnt(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        mesh.models.goes_on.clear()
        async with mesh.meanings() as meanings:
            asked = await mesh.ask(meanings, "hound")
            assert (asked.meaning, asked.words_alone) == (None, LEARNING)
            mesh.models.goes_on.set()
            await mesh.learnt(meanings)


async def test_what_was_learnt_is_not_asked_for_again(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        async with mesh.meanings() as meanings:
            await mesh.learnt(meanings)
        mesh.models.asked.clear()
        async with mesh.meanings() as meanings:
            assert mesh.found(await mesh.learnt(meanings))[0] == "a dog barks"
        assert {*mesh.models.asked} == {"hound"}


async def test_a_change_asks_for_what_is_new_alone_and_forgets_what_is_gone(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh, mesh.meanings() as meanings:
        await mesh.learnt(meanings)
        mesh.models.asked.clear()
        mesh.models.goes_on.clear()
        mesh.passages = Passages(["a hound sleeps", *TEXTS[1:]])
        asking = asyncio.create_task(mesh.ask(meanings, "kitten"))
        await asyncio.sleep(0)
        mesh.models.goes_on.set()
        asked = await asking
        # The index of before answers for what it knows.
        assert mesh.found(asked)[0] == "a cat purrs"
        assert asked.words_alone in {PARTLY, ""}
        assert mesh.found(await mesh.learnt(meanings, "automobile"))[0] == "a car brakes"
        assert "a dog barks" not in mesh.found(await mesh.learnt(meanings, "dog"))
        assert [text for text in mesh.models.asked if " " in text] == ["a hound sleeps"]


async def break_off(mesh: World, meanings: Meanings) -> None:
    """Begin to learn many passages; after some of them the models are gone, and back once that was told."""
    mesh.passages = Passages([f"dog {number}" for number in range(3 * BATCH)])

    def fail_later(_: pb.EmbedResponse) -> None:
        if len(mesh.models.asked) > BATCH:
            mesh.models.refusal = llmesh.Unavailable("gone")

    async def gave_up() -> None:
        assert (await mesh.ask(meanings, "dog")).words_alone == "the passages were not embedded: gone"

    mesh.models.lie = fail_later
    await eventually(gave_up)
    mesh.models.refusal, mesh.models.lie = None, lambda _: None


async def test_a_build_that_broke_off_is_taken_up_where_it_was(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        async with mesh.meanings() as meanings:
            await break_off(mesh, meanings)
        async with mesh.meanings() as meanings:
            await mesh.learnt(meanings)
        embedded = [text for text in mesh.models.asked if text != "hound"]
        assert {*embedded} == {*mesh.passages.texts.values()}
        # The server may still get to the call that was under way when the first one ended.
        assert len(embedded) <= 4 * BATCH


async def test_once_the_models_are_back_it_is_said_that_all_is_being_learnt(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh, mesh.meanings() as meanings:
        mesh.passages = Passages([f"dog {number}" for number in range(3 * BATCH)])
        mesh.models.refusal = llmesh.Unavailable("gone")

        async def told(words: str) -> None:
            assert (await mesh.ask(meanings, "dog")).words_alone == words

        await eventually(lambda: told("the passages were not embedded: gone"))
        # One batch, and then no more.
        mesh.models.lie = lambda _: mesh.models.goes_on.clear()
        mesh.models.refusal = None
        await eventually(lambda: told(LEARNING))
        mesh.models.lie = lambda _: None
        mesh.models.goes_on.set()
        await mesh.learnt(meanings)


@pytest.mark.parametrize("lie", LIES)
async def test_no_vector_that_is_none_is_taken(tmp_path: Path, lie: str) -> None:
    async with world(tmp_path) as mesh:
        mesh.models.lie = LIES[lie]
        async with mesh.meanings() as meanings:

            async def told() -> None:
                said = (await mesh.ask(meanings, "hound")).words_alone
                assert said.startswith("the model server")

            await eventually(told)
            mesh.models.lie = lambda _: None
            await mesh.learnt(meanings)
            mesh.models.lie = LIES[lie]
            asked = await mesh.ask(meanings, "hound")
            assert asked.meaning is None
            assert asked.words_alone


async def test_another_model_in_the_place_of_one_is_learnt_anew(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh, mesh.meanings() as meanings:
        await mesh.learnt(meanings)
        mesh.models.name = "another"
        asked = await mesh.ask(meanings, "hound")
        # Vectors of two models have nothing to do with each other.
        assert (asked.meaning, asked.words_alone) == (None, LEARNING)
        again = await mesh.learnt(meanings)
        assert again.provenance == {"model": "another 1 sha256:0 4"}
        assert mesh.found(again)[0] == "a dog barks"


async def test_a_model_that_is_replaced_in_the_middle_makes_no_mixture(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        mesh.passages = Passages([f"dog {number}" for number in range(3 * BATCH)])

        def replaced(_: pb.EmbedResponse) -> None:
            mesh.models.name = "another"

        mesh.models.lie = replaced
        async with mesh.meanings() as meanings:
            asked = await mesh.learnt(meanings)
        assert asked.provenance == {"model": "another 1 sha256:0 4"}
        # What the first one made is of no use.
        assert len(mesh.models.asked) >= 4 * BATCH


async def test_a_model_server_that_goes_is_left_alone_for_a_while_and_asked_again_later(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh, mesh.meanings() as meanings:
        await mesh.learnt(meanings)
        mesh.models.refusal = llmesh.Unavailable("it starts")
        assert (await mesh.ask(meanings, "hound")).words_alone == "the model server did not take the query: it starts"
        mesh.models.refusal = None
        assert (await mesh.ask(meanings, "hound")).words_alone == "the model server did not answer a moment ago"
        mesh.now_s += PAUSE_S
        assert (await mesh.ask(meanings, "hound")).words_alone == ""


async def test_what_one_caller_is_refused_keeps_no_other_from_meanings(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh, mesh.meanings() as meanings:
        await mesh.learnt(meanings)
        mesh.models.refusal = llmesh.Denied("no rule permits it")
        assert (
            await mesh.ask(meanings, "hound")
        ).words_alone == "the model server did not take the query: no rule permits it"
        mesh.models.refusal = None
        assert (await mesh.ask(meanings, "hound")).words_alone == ""


async def test_a_model_server_that_hangs_holds_a_search_for_half_a_second_and_no_longer(tmp_path: Path) -> None:
    async with world(tmp_path, query_timeout_s=0.5) as mesh, mesh.meanings() as meanings:
        await mesh.learnt(meanings)
        mesh.models.goes_on.clear()
        asked = await asyncio.wait_for(mesh.ask(meanings, "hound"), 60)
        assert asked.meaning is None
        assert (await mesh.ask(meanings, "hound")).words_alone == "the model server did not answer a moment ago"


async def test_learning_leaves_others_most_of_the_model_servers_time(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        mesh.passages = Passages([f"dog {number}" for number in range(3 * BATCH)])

        def takes_a_second(_: pb.EmbedResponse) -> None:
            mesh.now_s += 1

        async def learnt() -> None:
            assert len(mesh.rests) > 3

        mesh.models.lie = takes_a_second
        async with mesh.meanings():
            await eventually(learnt)
        assert mesh.rests[:3] == [REST, REST, REST]


async def test_texts_of_one_length_are_embedded_together(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        mesh.passages = Passages([f"dog{'s' * (number * 7 % 50)}" for number in range(3 * BATCH)])
        async with mesh.meanings() as meanings:
            await mesh.learnt(meanings)
        lengths = [len(text) for text in mesh.models.asked if text != "hound"]
        assert lengths == sorted(len(text) for text in mesh.passages.texts.values())


async def test_a_passage_that_is_longer_than_a_model_takes_keeps_no_other_from_being_learnt(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        mesh.passages = Passages([*TEXTS, "a kitten " + "x" * 1_000_000])
        async with mesh.meanings() as meanings:
            assert mesh.found(await mesh.learnt(meanings)) == ["a dog barks"]
            assert len(mesh.found(await mesh.learnt(meanings, "kitten"))) == 2


async def test_that_it_waits_for_the_model_server_is_said_once_and_calmly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with world(tmp_path) as mesh:
        mesh.models.refusal = llmesh.Denied("it is not on the mesh", reason="NOT_DELEGATED")
        async with mesh.meanings() as meanings:

            async def told(why: str) -> None:
                assert (await mesh.ask(meanings, "hound")).words_alone == f"the passages were not embedded: {why}"

            await eventually(lambda: told("it is not on the mesh"))
            mesh.models.refusal = llmesh.Unavailable("it starts")
            await eventually(lambda: told("it starts"))
            mesh.models.refusal = None
            await mesh.learnt(meanings)
    [waits, learnt] = [record for record in caplog.records if record.name == "llmesh.retrieval.meanings"]
    assert (waits.levelname, waits.message) == (
        "INFO",
        "passages are found by words alone until the model server is there",
    )
    assert learnt.message == "passages' meanings learnt"


async def test_a_model_server_that_fails_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with world(tmp_path) as mesh:
        mesh.models.refusal = llmesh.ToolFailed("broken")
        async with mesh.meanings():

            async def warned() -> None:
                assert "passages' meanings were not learnt" in {
                    record.message for record in caplog.records if record.levelname == "WARNING"
                }

            await eventually(warned)


async def test_an_index_that_is_being_built_holds_up_no_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    building, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def build(_model: str, _vectors: Mapping[bytes, Vector], *, goes_on: Callable[[], bool]) -> Nearest:
        loop.call_soon_threadsafe(building.set)
        while goes_on():
            pass
        loop.call_soon_threadsafe(ended.set)
        raise StoppedError

    monkeypatch.setattr(Nearest, "build", build)
    async with world(tmp_path) as mesh:
        async with mesh.meanings():
            await asyncio.wait_for(building.wait(), 60)
        await asyncio.wait_for(ended.wait(), 60)


async def test_what_goes_wrong_is_for_the_log_and_not_for_callers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as mesh:
        mesh.unreadable = [OSError(13, "Permission denied", "/home/ada/secret")] * 1_000_000
        async with mesh.meanings() as meanings:

            async def failed() -> None:
                assert mesh.rests

            await eventually(failed)
            assert (await mesh.ask(meanings, "hound")).words_alone == UNLEARNT
            await mesh.learnt(meanings)
    [warned] = [record for record in caplog.records if record.message == "passages' meanings were not learnt"]
    assert warned.exc_info
    assert "secret" in str(warned.exc_info[1])


async def test_what_the_disk_does_not_take_is_used_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.joinpath("meanings").write_text("a file where the folder would be")
    async with world(tmp_path) as mesh, mesh.meanings() as meanings:
        assert mesh.found(await mesh.learnt(meanings))[0] == "a dog barks"
    assert [record.message for record in caplog.records if record.levelname == "WARNING"].count(
        "meanings are kept in memory alone"
    ) == 1


async def test_where_the_disk_takes_nothing_only_what_is_new_is_asked_for(tmp_path: Path) -> None:
    tmp_path.joinpath("meanings").write_text("a file where the folder would be")
    async with world(tmp_path) as mesh, mesh.meanings() as meanings:
        await mesh.learnt(meanings)
        mesh.models.asked.clear()
        mesh.passages = Passages(["a hound sleeps", *TEXTS[1:]])
        assert mesh.found(await mesh.learnt(meanings))[0] == "a hound sleeps"
        assert [text for text in mesh.models.asked if " " in text] == ["a hound sleeps"]


async def test_where_the_disk_takes_nothing_a_build_that_broke_off_is_taken_up_where_it_was(tmp_path: Path) -> None:
    tmp_path.joinpath("meanings").write_text("a file where the folder would be")
    async with world(tmp_path) as mesh:
        async with mesh.meanings() as meanings:
            await break_off(mesh, meanings)
            # Others are wanted by now, too.
            mesh.passages = Passages([*mesh.passages.texts.values(), "a cat purrs"])
            await mesh.learnt(meanings)
        assert sorted(text for text in mesh.models.asked if text != "hound") == sorted(mesh.passages.texts.values())


@pytest.mark.parametrize("name", ["index", "vectors", "*.vectors"])
async def test_what_is_damaged_is_made_again(tmp_path: Path, name: str) -> None:
    async with world(tmp_path) as mesh:

        async def kept() -> Path:
            paths = [*mesh.folder.glob(name)]
            assert len(paths) == 1
            return paths[0]

        async with mesh.meanings() as meanings:
            await mesh.learnt(meanings)
            # It is used before it is kept.
            path = await eventually(kept)
        path.write_bytes(b"x" * 5000)
        async with mesh.meanings() as meanings:
            assert mesh.found(await mesh.learnt(meanings))[0] == "a dog barks"


async def test_passages_that_cannot_be_read_are_asked_for_again(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        mesh.unreadable = [llmesh.Unavailable("no packages")]

        async def read() -> None:
            assert mesh.models.asked == list(TEXTS)

        async with mesh.meanings():
            await eventually(read)
        assert mesh.rests[0] == PAUSE_S


async def test_none_is_learnt_of_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        mesh.passages = Passages([])
        async with mesh.meanings() as meanings:
            assert (await mesh.ask(meanings, "hound")).meaning is None
        assert mesh.models.asked == []
