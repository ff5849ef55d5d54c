"""The schema of each shape, as it was when somebody last looked.

`python -m tests.llmesh.schema.test_golden` writes them anew.
"""

import json
from pathlib import Path

import pytest

from llmesh.schema import schema_of
from tests.llmesh.schema.shapes import shapes

GOLDEN = Path(__file__).parent / "golden"


def shown(name: str) -> str:
    schema = schema_of(shapes()[name])
    facts = {"max_bytes": schema.max_bytes, "left_out": schema.left_out, "schema": schema.json}
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", shapes())
def test_a_schema_is_as_it_was(name: str) -> None:
    assert (GOLDEN / f"{name}.json").read_text() == shown(name)


def test_there_are_golden_files_for_every_shape_and_no_other() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(shapes())
    assert len(shapes()) >= 20


def test_a_schema_is_the_same_text_each_time() -> None:
    for name, message in shapes().items():
        assert schema_of(message).text == schema_of(message).text, name


if __name__ == "__main__":
    for each in shapes():
        (GOLDEN / f"{each}.json").write_text(shown(each))
