"""Rendered contracts compile to the descriptors they came from."""

from importlib import resources
from pathlib import Path

import grpc_tools.protoc  # pyright: ignore[reportMissingTypeStubs]
import pytest
from google.protobuf import descriptor_pb2 as pb

from llmesh.dynamic import Contract
from llmesh.proto_source import SourceError, render

REPO = Path(__file__).parents[2]
BUILT_IN = Path(str(resources.files("grpc_tools") / "_proto"))

PROTO2 = """
syntax = "proto2";
package acme.odd.v1;
import public "google/protobuf/timestamp.proto";
import "google/protobuf/descriptor.proto";
option java_package = "com.acme.odd";
option optimize_for = CODE_SIZE;
extend google.protobuf.FieldOptions {
  optional string note = 50001;
  repeated int32 sizes = 50002;
  optional Settings settings = 50003;
  optional double ratio = 50004;
  optional bytes raw_note = 50005;
  optional Colour colour = 50006;
}
extend Thing { optional group Extra = 150 { optional int32 depth = 1; } }
enum Colour {
  option allow_alias = true;
  reserved 10 to 20, -5, 100 to max;
  reserved "MAUVE", "TAUPE";
  RED = 0;
  CRIMSON = 0 [deprecated = true];
  BLUE = -1;
}
message Settings {
  optional string name = 1;
  repeated Settings inner = 2;
  map<string, int64> limits = 3;
  extensions 1000 to 1999;
  extend Settings { optional bool strict = 1000; }
}
message Thing {
  option deprecated = true;
  reserved 50, 60 to 70, 1000 to max;
  reserved "old";
  extensions 100 to 199 [declaration = { number: 150 full_name: ".acme.odd.v1.extra" type: ".acme.odd.v1.Extra" }];
  extensions 200 to 299, 301;
  message Colour { optional string name = 1; }
  enum Kind { NONE = 0; SOME = 1; }
  required string id = 1 [default = "a \\"b\\" \\n ü"];
  optional bytes raw = 2 [default = "\\000\\xffabc\\""];
  optional double big = 3 [default = inf];
  optional float odd = 4 [default = nan];
  optional float low = 5 [default = -inf];
  optional bool on = 6 [default = true];
  optional Kind kind = 7 [default = SOME];
  optional .acme.odd.v1.Colour outer_colour = 8 [default = BLUE];
  optional Colour inner_colour = 9;
  repeated int32 packed = 10 [packed = true, json_name = "zipped"];
  optional group Part = 11 { optional int32 depth = 1; repeated group Leaf = 2 { optional string text = 1; } }
  oneof choice {
    string text = 12;
    group Picture = 13 { optional bytes png = 1; }
    int64 number = 14;
  }
  map<string, Thing> children = 15;
  map<int32, Kind> kinds = 16;
  optional google.protobuf.Timestamp made = 17;
  optional string noted = 18 [
    (note) = "line\\nand \\"quotes\\" ü", (sizes) = 1, (sizes) = -2,
    (settings) = { name: "x" inner { name: "y" [acme.odd.v1.Settings.strict]: true } limits { key: "k" value: 5 } },
    (ratio) = 0.5, (raw_note) = "\\001\\002", (colour) = BLUE
  ];
  optional string empty = 19 [(settings) = {}, (ratio) = inf];
}
"""

PROTO3 = """
syntax = "proto3";
package acme.llmesh.api.v1;
import weak "llmesh/api/options/v1/options.proto";
import "llmesh/api/retrieval/v1/retrieval.proto";
import "buf/validate/validate.proto";
message Empty {}
message api { string a_b_c = 1; string aB = 2 [json_name = "other"]; }
message Asks {
  optional string maybe = 1;
  oneof which { string left = 2; Empty right = 3; }
  optional .llmesh.api.retrieval.v1.RetrieveRequest wrapped = 4;
  repeated uint32 numbers = 5 [
    packed = false, (buf.validate.field).repeated = { min_items: 1 items: { uint32: { gt: 3 } } }
  ];
  option (buf.validate.message).cel = { id: "x" message: "said \\"no\\"" expression: "this.maybe != 'a\\nb'" };
  map<string, .llmesh.api.retrieval.v1.Passage> by_name = 6;
  api named_like_a_package = 7;
}
service Everything {
  option (.llmesh.api.options.v1.tool) = {
    name: "Everything" lifecycle: { stage: STAGE_STABLE } labels { key: "a" value: "b" }
  };
  rpc Plain(Asks) returns (Empty);
  rpc Both(stream Asks) returns (stream Empty) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option deprecated = true;
    option (.llmesh.api.options.v1.method) = {
      effect: EFFECT_READ deadline: { seconds: 3 nanos: 5 } uses: "a/b" uses: "c/d"
    };
  }
  rpc Retrieve(.llmesh.api.retrieval.v1.RetrieveRequest) returns (.llmesh.api.retrieval.v1.RetrieveResponse);
}
service None {}
"""

EDITION = """
edition = "2023";
package acme.new.v1;
option features.field_presence = IMPLICIT;
message One {
  reserved old, older;
  string implicit = 1;
  string explicit = 2 [features.field_presence = EXPLICIT];
  Two inner = 3 [features.message_encoding = DELIMITED];
  repeated int32 expanded = 4 [features.repeated_field_encoding = EXPANDED];
  enum Closed { option features.enum_type = CLOSED; ZERO = 0; }
  Closed closed = 5 [features.field_presence = EXPLICIT];
}
message Two {}
"""

NO_PACKAGE = 'syntax = "proto3"; message Lone { Lone other = 1; }'


def protoc(*arguments: str) -> None:
    assert grpc_tools.protoc.main(["protoc", *arguments]) == 0  # pyright: ignore[reportUnknownMemberType]


def compiled(folder: Path, *roots: Path) -> pb.FileDescriptorSet:
    """What protoc makes of every .proto in folder, with all that is imported."""
    out = folder / "set.binpb"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    includes = [f"-I{root}" for root in (folder, *roots, BUILT_IN)]
    protoc(*includes, "--include_imports", f"--descriptor_set_out={out}", *names)
    return pb.FileDescriptorSet.FromString(out.read_bytes())


def assert_round_trip(files: pb.FileDescriptorSet, again: Path) -> None:
    contract = Contract.of(files)
    for name, text in render(contract.files, contract.pool).items():
        if not name.startswith("google/protobuf/"):
            path = again / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    before = {file.name: file for file in files.file}
    for file in compiled(again).file:
        assert file == before[file.name], file.name
        assert file.SerializeToString(deterministic=True) == before[file.name].SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "source", [PROTO2, PROTO3, EDITION, NO_PACKAGE], ids=["proto2", "proto3", "edition 2023", "no package"]
)
def test_odd_files_come_back_as_they_were(source: str, tmp_path: Path) -> None:
    folder = tmp_path / "before"
    folder.mkdir()
    (folder / "odd.proto").write_text(source)
    assert_round_trip(compiled(folder, REPO / "protos", REPO / "third_party"), tmp_path / "after")


@pytest.mark.parametrize("root", ["protos", "third_party"])
def test_our_own_contracts_come_back_as_they_were(root: str, tmp_path: Path) -> None:
    files = pb.FileDescriptorSet()
    for path in sorted((REPO / root).rglob("*.proto")):
        (copy := tmp_path / "before" / path.relative_to(REPO / root)).parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    files = compiled(tmp_path / "before", REPO / "protos", REPO / "third_party")
    assert_round_trip(files, tmp_path / "after")


def test_protobufs_own_files_come_back_as_they_were(tmp_path: Path) -> None:
    files = compiled_built_in(tmp_path)
    contract = Contract.of(files)
    for name, text in render(contract.files, contract.pool).items():
        (path := tmp_path / "after" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = {file.name: file for file in files.file}
    assert all(file == before[file.name] for file in compiled(tmp_path / "after").file)


def compiled_built_in(tmp_path: Path) -> pb.FileDescriptorSet:
    names = [f"google/protobuf/{name}.proto" for name in ("descriptor", "any", "struct", "type", "api", "wrappers")]
    out = tmp_path / "built_in.binpb"
    protoc(f"-I{BUILT_IN}", "--include_imports", f"--descriptor_set_out={out}", *names)
    return pb.FileDescriptorSet.FromString(out.read_bytes())


def test_an_option_that_nothing_defines_is_refused_not_lost(tmp_path: Path) -> None:
    folder = tmp_path / "before"
    folder.mkdir()
    (folder / "odd.proto").write_text(PROTO2)
    files = compiled(folder)
    odd = next(file for file in files.file if file.name == "odd.proto")
    # Field 51799, a string.
    odd.message_type[0].options.MergeFromString(b"\xba\xa5\x19\x01a")
    contract = Contract.of(files)
    with pytest.raises(SourceError, match="not part of the contract"):
        render(contract.files, contract.pool)


def test_a_client_team_gets_readable_source(tmp_path: Path) -> None:
    folder = tmp_path / "before"
    folder.mkdir()
    (folder / "lone.proto").write_text(
        'syntax = "proto3"; package acme.x.v1; import "buf/validate/validate.proto";'
        'import "google/protobuf/timestamp.proto";'
        "message Ticket { string id = 1 [(buf.validate.field).string.min_len = 1];"
        "google.protobuf.Timestamp opened = 2; reserved 3 to 5; oneof by { string mail = 6; } }"
        "service Tickets { rpc GetTicket(Ticket) returns (stream Ticket); }"
    )
    contract = Contract.of(compiled(folder, REPO / "third_party"))
    assert render(contract.files, contract.pool)["lone.proto"] == GOLDEN


GOLDEN = """\
syntax = "proto3";

package acme.x.v1;

import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";

message Ticket {
  reserved 3 to 5;

  string id = 1 [
    (buf.validate.field) = {
      string {
        min_len: 1
      }
    }
  ];
  google.protobuf.Timestamp opened = 2;
  oneof by {
    string mail = 6;
  }
}

service Tickets {
  rpc GetTicket(Ticket) returns (stream Ticket);
}
"""
