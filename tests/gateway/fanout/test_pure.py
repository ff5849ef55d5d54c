"""What fan-outs are planned with, by properties: merging, the split of time, completion, allowances."""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout import allowances
from gateway.fanout import room as room_of
from gateway.fanout.behalf import behalf_of
from gateway.fanout.budget import split
from gateway.fanout.completion import progress
from gateway.fanout.merge import GATHERED_MOST_ENTRIES, Contribution, Gathered, read_merge
from gateway.fanout.room import Room
from gateway.snapshot.caller import DELEGATION
from gateway.snapshot.fanout import DELEGATED
from governance.words import Caller
from llmesh.api.mesh.v1 import mesh_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options
from llmesh.api.retrieval.v1.retrieval_pb2 import Citation, Passage, RetrieveResponse
from llmesh.errors import InvalidCall


def contribution(name: str, came: int, message: RetrieveResponse) -> Contribution:
    return Contribution(name, came, RetrieveResponse, message.SerializeToString())


passage = st.builds(
    Passage,
    text=st.text(max_size=3),
    score=st.floats(width=32),
    citation=st.builds(Citation, digest=st.sampled_from("abc")),
)
answers = st.lists(st.lists(passage, max_size=4), min_size=1, max_size=5).map(
    lambda found: [
        contribution(f"tool{index}", index, RetrieveResponse(passages=each)) for index, each in enumerate(found)
    ]
)
MERGES = {
    "concatenate": options.Merge(concatenate=options.Concatenate(field="passages")),
    "by_key": options.Merge(by_key=options.ByKey(field="passages", key="citation.digest")),
    "top_k": options.Merge(top_k=options.TopK(field="passages", score="score", k=3, key="citation.digest")),
}


def merged(stated: options.Merge, given_answers: Sequence[Contribution]) -> RetrieveResponse:
    made = read_merge(stated, RetrieveResponse).make(given_answers)
    assert isinstance(made, RetrieveResponse)
    return made


def entries(found: Sequence[Contribution]) -> Iterator[Passage]:
    for answer in found:
        assert isinstance(answer.message, RetrieveResponse)
        yield from answer.message.passages


def seen(message: RetrieveResponse) -> list[bytes]:
    # NaN equals nothing, but its bytes do.
    return [each.SerializeToString() for each in message.passages]


@pytest.mark.parametrize("stated", MERGES.values(), ids=MERGES)
@given(found=answers, seed=st.randoms())
def test_what_is_merged_does_not_depend_on_the_order_in_which_answers_came(
    stated: options.Merge, found: list[Contribution], seed: Random
) -> None:
    in_order = merged(stated, found)
    came = [replace(each, came=place) for place, each in enumerate(found)]
    seed.shuffle(came)

    assert seen(merged(stated, came)) == seen(in_order)


@given(found=answers)
def test_nothing_is_lost_of_what_is_concatenated(found: list[Contribution]) -> None:
    every = [each.SerializeToString() for each in entries(found)]
    assert seen(merged(MERGES["concatenate"], found)) == every


@given(found=answers)
def test_of_each_key_one_entry_stays(found: list[Contribution]) -> None:
    digests = [each.citation.digest for each in merged(MERGES["by_key"], found).passages]
    assert sorted(digests) == sorted({each.citation.digest for each in entries(found)})


@given(found=answers)
def test_the_highest_scores_stay_and_none_that_is_no_number_before_one_that_is(found: list[Contribution]) -> None:
    kept = [each.score for each in merged(MERGES["top_k"], found).passages]
    ranks: dict[str, list[float]] = {}
    for each in entries(found):
        ranks.setdefault(each.citation.digest, []).append(_rank(each.score))
    best = [max(scores) for scores in ranks.values()]
    assert [_rank(score) for score in kept] == sorted(best, reverse=True)[:3]


def _rank(score: float) -> float:
    return -math.inf if math.isnan(score) else score + 0.0


def test_the_first_is_the_one_that_came_first() -> None:
    late, early = (RetrieveResponse(passages=[Passage(text=text)]) for text in ("late", "early"))
    found = [contribution("a", 1, late), contribution("b", 0, early)]
    assert merged(options.Merge(first=options.First()), found) == early


@pytest.mark.parametrize(
    "stated",
    [
        options.Merge(),
        options.Merge(concatenate=options.Concatenate(field="none")),
        options.Merge(by_key=options.ByKey(field="passages", key="citation")),
        options.Merge(by_key=options.ByKey(field="passages", key="citation.digest.more")),
        options.Merge(by_key=options.ByKey(field="passages", key="attributes")),
        options.Merge(by_key=options.ByKey(field="passages", key="")),
        options.Merge(by_key=options.ByKey(field="passages", key="score")),
        options.Merge(top_k=options.TopK(field="passages", score="text")),
        options.Merge(top_k=options.TopK(field="passages", score="citation.digest")),
    ],
)
def test_a_merge_by_what_is_not_there_is_refused(stated: options.Merge) -> None:
    with pytest.raises(InvalidCall) as refused:
        read_merge(stated, RetrieveResponse)
    assert refused.value.violations
    assert refused.value.reason == "BAD_MERGE"


def test_answers_that_are_too_large_together_are_not_kept() -> None:
    gathered = Gathered(read_merge(MERGES["concatenate"], RetrieveResponse))
    for name in "abc":
        gathered.add(name, RetrieveResponse(passages=[Passage(text="x" * (5 << 20))]))
    assert isinstance(gathered.merged(), str)
    assert not gathered.answers


@pytest.mark.parametrize("stated", [*MERGES.values(), options.Merge(first=options.First())], ids=[*MERGES, "first"])
def test_an_answer_is_kept_as_its_bytes_alone(stated: options.Merge) -> None:
    gathered = Gathered(read_merge(stated, RetrieveResponse))
    answer = RetrieveResponse(passages=[Passage(text="tea")])
    known = sys.getrefcount(answer)
    gathered.add("a", answer)
    assert sys.getrefcount(answer) == known
    assert gathered.merged() == RetrieveResponse(passages=[Passage(text="tea")])


def test_where_the_first_is_taken_no_other_counts_or_is_kept() -> None:
    gathered = Gathered(read_merge(options.Merge(first=options.First()), RetrieveResponse))
    first = RetrieveResponse(passages=[Passage(text="x" * (3 << 20))])
    for name in "abcdef":
        gathered.add(name, first if name == "a" else RetrieveResponse(passages=[Passage(text="y" * (3 << 20))]))

    assert gathered.merged() == first
    assert len(gathered.answers) == 1
    assert gathered.size_bytes == first.ByteSize()


@pytest.mark.parametrize("stated", MERGES.values(), ids=MERGES)
def test_answers_of_very_many_entries_are_not_merged_however_small_they_are(stated: options.Merge) -> None:
    gathered = Gathered(read_merge(stated, RetrieveResponse))
    gathered.add("a", RetrieveResponse(passages=[Passage()] * GATHERED_MOST_ENTRIES))
    assert isinstance(gathered.merged(), RetrieveResponse)

    gathered.add("b", RetrieveResponse(passages=[Passage()]))
    assert gathered.merged() == "the answers have more than 12582912 bytes or 20000 entries together"
    assert not gathered.answers


@given(remaining_s=st.floats(min_value=1e-6, max_value=86_400))
def test_some_of_the_time_is_kept_to_answer_and_most_is_the_branches(remaining_s: float) -> None:
    budget = split(remaining_s)
    assert budget.branch_s + budget.kept_s == pytest.approx(remaining_s)
    assert 0 < budget.kept_s <= 0.1
    assert budget.branch_s >= remaining_s * 0.89
    assert budget.branch_s < budget.call_s < remaining_s


@given(first=st.floats(min_value=1e-6, max_value=86_400), more=st.floats(min_value=0, max_value=86_400))
def test_more_time_is_never_less_for_branches(first: float, more: float) -> None:
    assert split(first + more).branch_s >= split(first).branch_s


@given(ends=st.lists(st.booleans(), min_size=1, max_size=20), quorum=st.integers(min_value=1, max_value=20))
def test_a_quorum_is_met_exactly_if_enough_answer_and_ends_as_soon_as_that_is_known(
    ends: list[bool], quorum: int
) -> None:
    quorum = min(quorum, len(ends))
    done = progress(pb.COMPLETION_QUORUM, quorum, len(ends))
    place = 0
    for place, ok in enumerate(ends, 1):
        done.count(ok=ok)
        known = sum(ends[:place]) >= quorum or len(ends) - (place - sum(ends[:place])) < quorum
        assert (done.end() is not None) is (known or place == len(ends))
        if known:
            break
    assert done.met is (sum(ends[:place]) >= quorum)


@given(held=st.lists(st.integers(1, 64 << 20), max_size=30), wanted=st.integers(1, 64 << 20))
def test_nobody_takes_more_room_than_is_left_then_for_everybody_else(held: list[int], wanted: int) -> None:
    room = Room()
    for number, size in enumerate(held):
        if room.hold(number, size):
            assert room_of.HELD_BYTES - room.held_bytes >= size
    left = room_of.HELD_BYTES - room.held_bytes

    assert room.hold("newcomer", wanted) is (2 * wanted <= left and wanted <= room_of.HELD_OF_A_CALLER_BYTES)


# Envoy's guard of a connection, as of 1.40: Http::ConnectionManagerImpl::maybeDrainDueToPrematureResets.
TOTAL = 500


# Runs of streams that are given up, or are not.
runs = st.lists(st.tuples(st.booleans(), st.integers(1, 900)), max_size=8).map(
    lambda found: [given_up for given_up, count in found for _ in range(count)]
)


@pytest.mark.parametrize(
    ("value", "goes"), [("00-ab-cd-01", True), ("a=b, c=d", True), ("a=\tb", False), ("a\x7f", False), ("é", False)]
)
def test_what_of_a_trace_is_no_text_that_can_be_printed_goes_no_further(value: str, goes: bool) -> None:  # noqa: FBT001 a case
    behalf = behalf_of(Caller("corp", "sam"), "call", [("tracestate", value)])
    assert behalf.trace == ((("tracestate", value),) if goes else ())


@pytest.mark.parametrize(("timeout_s", "ends_s"), [(5, 1005), (3600, 1020)])
def test_what_a_branch_brings_ends_no_later_than_what_its_fan_out_came_with(timeout_s: float, ends_s: int) -> None:
    claims = {"path": ["/a.v1.Agent/Ask"], "methods": ["/b.v1.Tool/Get"], "exp": 1020}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    behalf = behalf_of(Caller("corp", "sam"), "call", [(DELEGATED, payload)])

    brought = behalf.metadata(["/b.v1.Tool/Get"], lambda made: str(made.expires_s), timeout_s=timeout_s, now_s=1000)

    assert dict(brought["/b.v1.Tool/Get"].pairs)[DELEGATION] == str(ends_s)


@given(before=runs, after=runs)
def test_no_order_of_events_has_envoy_close_the_connection_whenever_it_was_made(
    before: list[bool], after: list[bool]
) -> None:
    bucket = allowances.resets()
    for given_up in before:
        _event(bucket, given_up=given_up)
    closed = young = 0
    for given_up in after:
        reset = _event(bucket, given_up=given_up)
        closed, young = closed + 1, young + reset
        limit_is_near = closed >= TOTAL and young * 2 > closed
        assert not limit_is_near
        assert young < TOTAL / 2 or closed >= TOTAL


def _event(bucket: allowances.Allowance, *, given_up: bool) -> bool:
    """Whether a stream that ends is one that was broken off young; if it may not be, it is given up when it is old."""
    if given_up and bucket.use():
        return True
    bucket.earn()
    return False
