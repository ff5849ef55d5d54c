"""Types made to harm whoever makes a schema of them: each ends, soon, with an error that names the type."""

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from llmesh.dynamic import Contract
from llmesh.schema import Limits, NoSchemaError, SchemaError, SchemaTooLargeError, schema_of
from tests.llmesh.schema.shapes import message

RULE = "(buf.validate.field)"


def fields(count: int, line: str) -> str:
    return "".join(line.format(at=at) for at in range(1, count + 1))


def oneofs(count: int) -> str:
    return "".join(
        f"oneof o{at} {{ bool a{at} = {3 * at + 1}; bool b{at} = {3 * at + 2}; bool c{at} = {3 * at + 3}; }}"
        for at in range(count)
    )


def nested(count: int, width: int) -> str:
    """Types that each hold the next one several times."""
    chain = "".join(f"message N{at} {{ {fields(width, f'N{at + 1} f{{at}} = {{at}};')} }}" for at in range(count))
    return f"{chain} message N{count} {{}} message M {{ N0 first = 1; }}"


def knot(count: int) -> str:
    """Types that each hold all the others."""
    return "".join(
        f"message {'M' if at == 0 else f'K{at}'} {{ "
        + "".join(f"{'M' if to == 0 else f'K{to}'} f{to} = {to + 1};" for to in range(count))
        + "}"
        for at in range(count)
    )


TOO_LARGE = {
    "oneofs that multiply": f"message M {{ {oneofs(40)} }}",
    "types that multiply": nested(7, 40),
    "types that all hold each other": knot(12),
    "an enum without end": f"enum E {{ E0 = 0; {fields(30_000, 'E{at} = {at};')} }} message M {{ E e = 1; }}",
    "fields without end": f"message M {{ {fields(3_900, 'string f{at} = {at};')} }}",
    "more that may be absent than decoders take": f"message M {{ {fields(257, 'optional bool f{at} = {at};')} }}",
    "a list of values without end": "message M { string s = 1 [(buf.validate.field).string = {"
    + "".join(f'in: "{at:0>60}" ' for at in range(6000))
    + "}]; }",
    "expressions that take long to read": "message M {"
    + fields(
        300,
        f'string f{{at}} = {{at}} [{RULE}.string = {{{{min_len: 4000 pattern: "^{"a" * 990}{{at}}$"}}}}];',
    )
    + "}",
    "texts that amount to them": "message M {"
    + fields(300, f'string f{{at}} = {{at}} [{RULE}.string = {{{{min_len: 4000 prefix: "{"a" * 990}{{at}}"}}}}];')
    + "}",
    "paths that amount to them": 'import "google/protobuf/field_mask.proto"; message M {'
    + fields(
        300,
        f'google.protobuf.FieldMask f{{at}} = {{at}} [{RULE}.field_mask = {{{{in: "{"a" * 480}{{at}}"}}}}];',
    )
    + "}",
    "a meaning without end": (
        f'message M {{ string s = 1 [(llmesh.api.options.v1.field).meaning = "{"x" * 300_000}"]; }}'
    ),
}


@pytest.mark.parametrize("source", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_type_that_explodes_is_refused_by_name(source: str) -> None:
    with pytest.raises(SchemaTooLargeError, match="`M` would be too large") as refused:
        schema_of(message(source))
    assert refused.value.type_name in str(refused.value)


def test_an_expression_that_many_fields_share_is_read_once() -> None:
    ids = fields(
        1500, f'string f{{at}} = {{at}} [{RULE}.string.pattern = "^[a-z0-9]{{{{8}}}}(-[a-z0-9]{{{{4}}}}){{{{3}}}}$"];'
    )
    assert schema_of(message(f"message M {{ {ids} }}"), Limits(optional=2000)).left_out == ()


def test_what_is_thrown_away_in_the_end_counts_too() -> None:
    # Each part is built, at great cost, before its last field makes it impossible.
    part = f"{fields(40, 'M f{at} = {at};')} google.protobuf.Any last = 99 [{RULE}.required = true];"
    with pytest.raises(SchemaError, match="`M`"):
        schema_of(message(f"message M {{ {part} }}"), Limits(recursion=6))


def test_types_deeper_than_the_limit_are_left_out_however_deep_they_go() -> None:
    schema = schema_of(message(nested(60, 1)), Limits(depth=3))
    assert schema.left_out == ("N1.f1",)


def needed(declared: str, rules: str = "") -> str:
    """A message of one field that must be there."""
    return f"message M {{ {declared} = 1 [{RULE} = {{required: true {rules}}}]; }}"


NO_SCHEMA = {
    "a type that must hold itself": needed("M inner"),
    "a needed Any": needed("google.protobuf.Any any"),
    "a needed list of Any": needed("repeated google.protobuf.Any any"),
    "a needed oneof of Any": (
        "message M { oneof o { option (buf.validate.oneof).required = true; google.protobuf.Any any = 1; } }"
    ),
    "bounds that cross": needed("string s", "string: {min_len: 3 max_len: 2}"),
    "numbers that cross": needed("int32 i", "int32: {const: 1 not_in: 1}"),
    "no number": needed("double d", "double: {gte: nan}"),
    "no value of an enum": f"enum E {{ E0 = 0; }} {needed('E e')}",
    "more items than anybody asks": needed("repeated bool b", "repeated: {min_items: 1000000000}"),
    "more text than anybody asks": needed("string s", "string: {min_len: 1000000000}"),
    "a name that needs escapes": 'message M { string s = 1 [json_name = "a\\"b"]; }',
}


@pytest.mark.parametrize("source", NO_SCHEMA.values(), ids=NO_SCHEMA)
def test_a_type_of_which_nothing_can_be_said_is_refused_by_name(source: str) -> None:
    with pytest.raises(NoSchemaError, match="`M") as refused:
        schema_of(message(source))
    assert refused.value.type_name == "M"


def test_rules_for_another_type_than_the_field_has_say_nothing() -> None:
    plain = schema_of(message("message M { int32 i = 1; bool b = 2; string s = 3; bytes r = 4; double d = 5; }"))
    crossed = f"""message M {{
      int32 i = 1 [{RULE}.duration = {{gte: {{seconds: 1}}}}]; bool b = 2 [{RULE}.int32.gte = 4];
      string s = 3 [{RULE}.bytes.min_len = 4]; bytes r = 4 [{RULE}.string.min_len = 4];
      double d = 5 [{RULE}.float.gte = 4]; }}"""
    assert schema_of(message(crossed)).json == plain.json


def test_a_type_under_a_known_name_that_is_another_is_refused() -> None:
    own = FileDescriptorProto(name="own.proto", package="google.protobuf", syntax="proto3")
    own.message_type.append(
        DescriptorProto(
            name="Timestamp",
            field=[
                FieldDescriptorProto(
                    name="text",
                    number=1,
                    type=FieldDescriptorProto.TYPE_STRING,
                    label=FieldDescriptorProto.LABEL_OPTIONAL,
                )
            ],
        )
    )
    contract = Contract.of(FileDescriptorSet(file=[own]))
    with pytest.raises(NoSchemaError, match=r"google\.protobuf\.Timestamp"):
        schema_of(contract.pool.FindMessageTypeByName("google.protobuf.Timestamp"))


def test_options_that_are_no_options_make_no_schema() -> None:
    file = FileDescriptorProto()
    message(f'message M {{ string s = 1 [{RULE}.string.const = "A"]; }}').file.CopyToProto(file)
    del file.dependency[:]
    # A text of 127 bytes, of which one is there.
    broken = file.SerializeToString().replace(b"\x0a\x01A", b"\x0a\x7fA")
    pool = DescriptorPool()
    pool.AddSerializedFile(broken)
    with pytest.raises(NoSchemaError, match="`M` has options"):
        schema_of(pool.FindMessageTypeByName("M"))
