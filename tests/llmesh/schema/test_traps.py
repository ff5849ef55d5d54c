"""What was once seen to go wrong between a schema and a decoder, and what keeps it from going wrong."""

import json
import re
from collections.abc import Iterator
from typing import Any as Untyped

import pytest
from google.protobuf import json_format

from llmesh.schema import BadJson, Limits, read_text, schema_of
from tests.llmesh.schema.shapes import message, shapes


def parts(schema: Untyped) -> Iterator[dict[str, Untyped]]:
    """Every schema in a schema, itself too."""
    yield schema
    inner = [
        *schema.get("anyOf", ()),
        *schema.get("properties", {}).values(),
        *schema.get("patternProperties", {}).values(),
    ]
    for each in [*inner, *([schema["items"]] if "items" in schema else [])]:
        yield from parts(each)


def json_of(name: str) -> Untyped:
    """The schema of a shape."""
    return schema_of(shapes()[name]).json


ALL = [part for shape in shapes().values() for part in parts(schema_of(shape).json)]


def of_type(name: str) -> list[dict[str, Untyped]]:
    return [part for part in ALL if part.get("type") == name]


def test_strings_are_bounded_by_a_pattern_never_by_a_length_which_a_decoder_gets_wrong() -> None:
    assert of_type("string")
    for part in of_type("string"):
        assert set(part) <= {"type", "pattern", "description"}
        # No `*`, no `+`, no open range: the longest match has an end.
        assert not re.search(r"(?<!\\)[*+](?![^\[]*\])|\{\d+,\}", part["pattern"]), part["pattern"]


def test_a_group_that_may_be_missing_is_never_marked_so_by_a_question_mark_which_a_decoder_gets_wrong() -> None:
    patterns = [part["pattern"] for part in of_type("string")]
    assert any("{0,1}" in pattern for pattern in patterns)
    assert not any(re.search(r"[)\]]\?", pattern) for pattern in patterns)


def test_nothing_is_repeated_more_often_at_once_than_a_decoder_can_hold() -> None:
    schema = schema_of(message("message M { string s = 1 [(buf.validate.field).string.min_len = 300]; }"))
    character = r"[ !#-\[\]-~\x80-" + "\ud7ff\ue000-\U0010ffff]"
    assert f"({character}{{32}}){{9}}{character}{{12}}" in json.loads(schema.text)["properties"]["s"]["pattern"]
    for part in of_type("string"):
        assert all(int(most) <= 128 for most in re.findall(r"(\d+)\}", part["pattern"]))


@pytest.mark.parametrize("bad", ['"', "\\", "\n", "\t", "\x00", "\x1f", "\x7f"])
def test_no_string_has_what_json_would_escape(bad: str) -> None:
    pattern = json_of("Names")["properties"]["aBC"]["pattern"]
    assert re.fullmatch(pattern, "plain ü 語 😀 /")
    assert not re.search(pattern, f"a{bad}b")


def test_no_class_of_characters_is_said_by_what_it_is_not_of_which_a_decoder_takes_broken_bytes_for_some() -> None:
    assert not any("[^" in part["pattern"] for part in of_type("string") if "pattern" in part)


def test_numbers_lists_and_maps_have_both_ends() -> None:
    for part in (*of_type("integer"), *of_type("number")):
        assert {"minimum", "maximum"} <= set(part)
    assert all("maxItems" in part for part in of_type("array"))
    maps = [part for part in of_type("object") if "patternProperties" in part]
    assert maps
    assert all("maxProperties" in part for part in maps)


def test_no_number_overflows_a_float() -> None:
    schema = schema_of(message("message M { float single = 1; double real = 2; }"))
    for each in list(parts(schema.json))[1:]:
        assert each == {"type": "number", "minimum": -1_000_000, "maximum": 1_000_000}


def test_no_object_is_open() -> None:
    assert of_type("object")
    assert all(part["additionalProperties"] is False for part in of_type("object"))


def test_recursion_is_unrolled_so_nothing_is_referred_to() -> None:
    tree = schema_of(shapes()["Tree"], Limits(recursion=2))
    assert tree.text.count('"left"') == 3
    assert "$ref" not in tree.text
    assert tree.left_out == ("acme.shapes.v1.Tree.left", "acme.shapes.v1.Tree.right")


def test_64_bits_are_strings_and_32_bits_are_numbers() -> None:
    fields = json_of("Scalars")["properties"]
    kinds = {name: part.get("type") for name, part in fields.items()}
    assert {kinds[name] for name in ("i64", "s64", "sf64", "u64", "f64")} == {"string"}
    assert {kinds[name] for name in ("i32", "s32", "sf32", "u32", "f32")} == {"integer"}


def test_the_oneof_that_the_compiler_makes_for_optional_is_no_choice() -> None:
    assert "anyOf" not in json_of("Optionals")
    # One that looks the same, but stands in the contract, is.
    assert len(json_of("Underscore")["anyOf"]) == 2


def test_each_alternative_of_a_oneof_has_one_branch_and_several_oneofs_multiply_out() -> None:
    alternatives = json_of("TwoChoices")["anyOf"]
    chosen = [tuple(name for name in ("a", "b", "c", "d") if name in each["required"]) for each in alternatives]
    # The first need not be set, the second must be.
    assert chosen == [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c",), ("d",)]
    for each, names in zip(alternatives, chosen, strict=True):
        assert set(each["properties"]) == {*names, "between"}


def test_a_key_that_a_decoder_repeats_is_told_or_the_last_one_stands() -> None:
    text = '{"labels": {"a": "1", "a": "2"}}'
    with pytest.raises(BadJson, match="`a` is given twice"):
        read_text(text, shapes()["Maps"])
    lenient = read_text(text, shapes()["Maps"], last_of_repeated=True)
    assert json_format.MessageToDict(lenient) == {"labels": {"a": "2"}}


def test_a_text_that_was_cut_is_no_message() -> None:
    with pytest.raises(BadJson, match="not JSON"):
        read_text('{"labels": {"a": "1', shapes()["Maps"])


def test_every_instance_fits_the_worst_case_by_which_the_length_of_an_answer_is_set() -> None:
    tight = Limits(string_chars=4)
    schema = schema_of(message("message M { string a = 1; repeated int32 b = 2; }"), tight)
    longest = '{"a": "\U0010ffff\U0010ffff\U0010ffff\U0010ffff", "b": [' + ", ".join(["-2147483648"] * 8) + "]}"
    assert len(longest.encode()) <= schema.max_bytes <= len(longest.encode()) + 8


def test_names_are_those_of_json() -> None:
    assert list(json_of("Names")["properties"]) == ["aBC", "an other-name", "CamelCase", "digit1"]


def test_an_alias_is_offered_by_one_name_but_read_by_each() -> None:
    colours = json_of("Scalars")["properties"]["colour"]["enum"]
    assert colours == ["COLOUR_UNSPECIFIED", "COLOUR_RED", "COLOUR_BLUE", "COLOUR_BELOW"]
    for name in ("COLOUR_RED", "COLOUR_CRIMSON"):
        read: Untyped = read_text(f'{{"colour": "{name}"}}', shapes()["Scalars"])
        assert read.colour == 1


def test_an_any_is_left_out_and_whoever_cannot_do_without_it_has_no_schema() -> None:
    assert schema_of(shapes()["WithAny"]).left_out == (
        "acme.shapes.v1.WithAny.detail",
        "acme.shapes.v1.WithAny.details",
    )


def test_a_meaning_and_a_unit_are_told_to_the_model() -> None:
    fields = json_of("Ticket")["properties"]
    assert fields["summary"]["description"] == "What the customer wants, in one sentence."
    assert fields["wait"]["description"] == "How long the customer has waited. (unit: min)"
    assert fields["confidence"]["description"] == "unit: fraction"
