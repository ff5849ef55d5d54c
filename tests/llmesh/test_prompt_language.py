"""What a prompt may say, as a whole: whatever is accepted renders any request, or tells what is wrong with it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from llmesh import InvalidCall, Prompt, PromptError
from tests.llmesh.schema.shapes import message

# Every kind of field, and names that mean something to Python, to Jinja or to what reads a message for it.
REQUEST = GetMessageClass(
    message("""message M {
  enum Mood { MOOD_UNSPECIFIED = 0; MOOD_GOOD = 1; }
  message N { string json = 1; string self = 2; N n = 3; repeated string tags = 4; }
  string title = 1;
  int64 count = 2;
  double ratio = 3;
  bool ok = 4;
  bytes blob = 5;
  Mood mood = 6;
  google.protobuf.Timestamp at = 7;
  google.protobuf.Any any = 8;
  N n = 9;
  repeated N ns = 10;
  repeated string items = 11;
  repeated sint32 counts = 12;
  repeated google.protobuf.Timestamp times = 13;
  map<string, string> texts = 14;
  map<bool, N> known = 15;
  string self = 16;
  string none = 17;
  string true = 18;
  string loop = 19;
}""")
)
NAMES = [field.name for field in REQUEST.DESCRIPTOR.fields]
PATHS = [*NAMES, "n.json", "n.self", "n.n.n.tags", "n.nothing", "x", "x.json", "x.n.self", "k", "v", "v.tags"]
LOOPS = ["loop.first", "loop.last", "loop.index", "loop.length", "loop.cycle"]
LITERALS = ["'a'", "''", "'\\ud800'", "0", "3", "2.5", "1e999", "9" * 30, "true", "none", "[1]"]
FILTERS = [
    *("|items", "|join", "|length", "|lower", "|tojson", "|trim", "|truncate", "|upper"),
    *("|join(', ')", "|join(title)", "|join(3)", "|join(attribute='t')", "|join(',', '__class__')"),
    *("|truncate(9)", "|truncate(2)", "|truncate('x')", "|truncate(count)", "|truncate(9, true, title)"),
    *("|truncate(2.5)", "|truncate(nope=3)", "|tojson(3)", "|length(3)", "|lower('x')", "|trim(count)", "|trim('a')"),
]
RIGHT = [
    *("title", "count", "ok", "at", "n.json", "n.self", "n.n.n.json", "'a'", "3", "title|upper|truncate(9)|tojson"),
    *("any|tojson", "n|tojson", "times|tojson", "items|join(', ')", "counts|join", "ns|length", "texts|length"),
]
COMPARED = ["==", "!=", "<", ">=", "in", "not in"]


def joined(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    """Texts, one after the other."""
    made = (st.just(each) if isinstance(each, str) else each for each in parts)
    return st.tuples(*made).map("".join)


FILTERED = st.lists(st.sampled_from(FILTERS), max_size=2).map("".join)
ANYTHING = joined(st.sampled_from([*PATHS, *LOOPS, *LITERALS]), FILTERED)
VALUE = st.sampled_from(RIGHT) | st.sampled_from(RIGHT) | ANYTHING
COMPARISON = joined(VALUE, st.sampled_from([f" {each} " for each in COMPARED]), VALUE)
CONDITION = st.recursive(
    VALUE | COMPARISON,
    lambda inner: joined("not ", inner) | joined("(", inner, st.sampled_from([" and ", " or "]), inner, ")"),
    max_leaves=3,
)
SHOWN = VALUE | VALUE | joined(VALUE, " if ", CONDITION, " else ", VALUE) | CONDITION
TARGET = st.sampled_from(["x", "x", "title", "self", "loop"])
TEST = st.just("") | joined(" if ", CONDITION)
TEMPLATES = st.recursive(
    joined("{{ ", SHOWN, " }}"),
    lambda inner: (
        joined("{% if ", CONDITION, " %}", inner, "{% else %}", inner, "{% endif %}")
        | joined("{% for ", TARGET, " in ", ANYTHING, " %}", inner, "{% endfor %}")
        | joined("{% for ", TARGET, " in ns", TEST, " %}", inner, "{% else %}so{% endfor %}")
        | joined("{% for k, v in known|items", TEST, " %}so{% else %}", inner, "{% endfor %}")
    ),
    max_leaves=3,
)


NESTED = st.fixed_dictionaries({}, optional={"json": st.text(), "self": st.text(), "n": st.just({"json": "deep"})})
FIELDS: dict[str, st.SearchStrategy[object]] = {
    **{name: st.text() for name in ("title", "self", "none", "true", "loop")},
    "count": st.integers(-(2**63), 2**63 - 1),
    "ratio": st.floats(),
    "ok": st.booleans(),
    "blob": st.binary(),
    "mood": st.sampled_from([0, 1, 7]),
    "at": st.sampled_from([{"seconds": 1}, {"seconds": 10**15}, {"nanos": -1}]),
    "any": st.sampled_from([{}, {"type_url": "x"}, {"type_url": "x/google.protobuf.Duration", "value": b"\xff"}]),
    "n": NESTED,
    "ns": st.lists(NESTED, max_size=3),
    "items": st.lists(st.text(), max_size=3),
    "counts": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    "times": st.lists(st.just({"seconds": 5}), max_size=2),
    "known": st.dictionaries(st.booleans(), NESTED),
    "texts": st.dictionaries(st.text(), st.text(), max_size=2),
}


def requests() -> st.SearchStrategy[Message]:
    return st.fixed_dictionaries({}, optional=FIELDS).map(lambda fields: REQUEST(**fields))


def load(folder: Path, text: str) -> Prompt:
    (folder / "judge.jinja").write_text(text)
    return Prompt.load(folder / "judge.jinja", REQUEST)


def test_whatever_is_accepted_renders_or_finds_fault_with_the_request(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    seen = Counter[str]()

    @settings(max_examples=600, deadline=None)
    @given(st.data(), TEMPLATES)
    def holds(data: st.DataObject, text: str) -> None:
        try:
            prompt = load(folder, text)
        except PromptError:
            seen["refused"] += 1
            return
        request = data.draw(requests())
        try:
            prompt.render(request).encode()
            seen["rendered"] += 1
        except InvalidCall:
            seen["invalid"] += 1

    holds()
    assert seen["rendered"] > 60, seen
