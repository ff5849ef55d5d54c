"""Schemas with each part written once, for whom it takes long to read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any as Untyped
from typing import cast

import pytest

from llmesh.schema import schema_of
from model_server.grammar import shared
from model_server.type_work import LIMITS
from tests.llmesh.schema.shapes import message, shapes


def written_out(schema: Untyped, parts: Mapping[str, Untyped]) -> Untyped:
    """The same with its parts in place of their names."""
    if isinstance(schema, list):
        return [written_out(each, parts) for each in cast("list[Untyped]", schema)]
    if not isinstance(schema, dict):
        return schema
    found = cast("dict[str, Untyped]", schema)
    if "$ref" in found:
        return written_out(parts[found["$ref"].removeprefix("#/$defs/")], parts)
    return {key: written_out(value, parts) for key, value in found.items()}


def without_words(schema: object) -> Untyped:
    """The same without words for readers."""
    return json.loads(
        json.dumps(schema),
        object_pairs_hook=lambda pairs: {
            key: value for key, value in pairs if not (key == "description" and isinstance(value, str))
        },
    )


@pytest.mark.parametrize("name", shapes())
def test_a_schema_says_the_same_in_the_same_order(name: str) -> None:
    schema = schema_of(shapes()[name], LIMITS[0])
    found = json.loads(shared(schema.text))
    parts = found.pop("$defs", {})
    assert json.dumps(written_out(found, parts)) == json.dumps(without_words(schema.json))


def test_a_part_is_written_once_however_often_it_is_there() -> None:
    inner = "message Inner { string text = 1; }"
    few, many = (
        shared(schema_of(message(f"{inner} message M {{ {fields} }}")).text)
        for fields in ("".join(f"Inner a{number} = {number};" for number in range(1, count + 1)) for count in (1, 200))
    )
    assert many.count('"pattern"') == few.count('"pattern"') == 1


def test_fields_called_like_keywords_stay() -> None:
    fields = 'string description = 1; string items = 2; Part part = 3 [json_name = "$ref"];'
    schema = schema_of(message(f"message Part {{ bool anyOf = 1; }} message M {{ {fields} }}"))
    found = json.loads(shared(schema.text))
    assert list(found["properties"]) == ["description", "items", "$ref"]
