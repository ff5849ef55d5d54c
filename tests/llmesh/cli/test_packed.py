"""What an answer packs, as the shell shows it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from typing import cast

import pytest
from echo_tool.service import EchoServicer
from google.protobuf import any_pb2, duration_pb2, field_mask_pb2, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from llmesh import testing
from llmesh.api.model.v1 import model_pb2 as pb
from llmesh.cli import packed as module
from llmesh.cli.packed import DEEPEST, PACKED_COUNTS, TYPES_MOST, learn_packed, learn_sent
from llmesh.dynamic import Contract

PARCEL = FileDescriptorProto(
    name="parcel.proto",
    package="acme.parcels.v1",
    syntax="proto3",
    message_type=[
        DescriptorProto(
            name="Parcel",
            field=[FieldDescriptorProto(name="weight_g", number=1, type=FieldDescriptorProto.TYPE_UINT32)],
        )
    ],
)
PALLET = FileDescriptorProto(
    name="pallet.proto",
    package="acme.parcels.v1",
    syntax="proto3",
    dependency=["google/protobuf/any.proto"],
    message_type=[
        DescriptorProto(
            name="Pallet",
            field=[
                FieldDescriptorProto(
                    name="parcels",
                    number=3,
                    type=FieldDescriptorProto.TYPE_MESSAGE,
                    label=FieldDescriptorProto.LABEL_REPEATED,
                    type_name=".google.protobuf.Any",
                )
            ],
        )
    ],
)
WEIGHS_800_G = b"\x08\xa0\x06"
URL = "type.googleapis.com/acme.parcels.v1.Parcel"


def files_of(file: FileDescriptor) -> Iterable[FileDescriptorProto]:
    for imported in file.dependencies:
        yield from files_of(imported)
    yield FileDescriptorProto.FromString(file.serialized_pb)


def contract() -> Contract:
    return Contract.of(FileDescriptorSet(file={file.name: file for file in files_of(pb.DESCRIPTOR)}.values()))


async def shown(packed: any_pb2.Any, *, sent: Iterable[FileDescriptorProto] = ()) -> object:
    """The JSON of an answer that packs this; sent: with its request."""
    found = contract().method("llmesh.api.model.v1.ModelService", "GenerateMessage")
    sample = pb.GenerateMessageRequest(descriptors=FileDescriptorSet(file=sent))
    request = _of(found.descriptor.input_type, sample)
    answer = _of(found.descriptor.output_type, pb.GenerateMessageResponse(message=packed))
    async with testing.run(EchoServicer()) as tool:
        learn_sent(request)
        await learn_packed(tool.channel, answer)
    return found.value(answer)["message"]


def _of(kind: Descriptor, message: Message) -> Message:
    return message_factory.GetMessageClass(kind).FromString(message.SerializeToString())


async def test_what_is_of_a_type_that_the_request_sent_is_shown() -> None:
    packed = any_pb2.Any(type_url=URL, value=WEIGHS_800_G)
    assert await shown(packed, sent=[PARCEL]) == {"@type": URL, "weightG": 800}


@pytest.mark.parametrize("value", [WEIGHS_800_G, b"\xff"], ids=["unknown type", "no message"])
async def test_what_cannot_be_read_is_shown_as_bytes(value: bytes) -> None:
    packed = any_pb2.Any(type_url=URL, value=value)
    assert await shown(packed, sent=[PARCEL] if value == b"\xff" else []) == {
        "@type": f"{URL}/google.protobuf.BytesValue",
        "value": base64.b64encode(value).decode(),
    }


@pytest.mark.parametrize(
    "message",
    [
        timestamp_pb2.Timestamp(seconds=1 << 60),
        duration_pb2.Duration(seconds=1, nanos=-1),
        struct_pb2.Value(number_value=math.nan),
        struct_pb2.ListValue(values=[struct_pb2.Value(number_value=math.inf)]),
        field_mask_pb2.FieldMask(paths=["aB"]),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
async def test_what_has_no_json_is_shown_as_bytes_and_what_packs_it_as_it_is(message: Message) -> None:
    inner, outer = any_pb2.Any(), any_pb2.Any()
    inner.Pack(message)
    outer.Pack(pb.GenerateMessageResponse(message=inner))
    assert await shown(outer, sent=files_of(cast("FileDescriptor", message.DESCRIPTOR.file))) == {
        "@type": "type.googleapis.com/llmesh.api.model.v1.GenerateMessageResponse",
        "message": {
            "@type": f"{inner.type_url}/google.protobuf.BytesValue",
            "value": base64.b64encode(inner.value).decode(),
        },
    }


async def test_what_cannot_be_read_within_what_can_is_shown_as_bytes() -> None:
    outer = any_pb2.Any()
    outer.Pack(pb.GenerateMessageResponse(message=any_pb2.Any(type_url=URL, value=WEIGHS_800_G)))
    assert await shown(outer) == {
        "@type": "type.googleapis.com/llmesh.api.model.v1.GenerateMessageResponse",
        "message": {"@type": f"{URL}/google.protobuf.BytesValue", "value": "CKAG"},
    }


async def test_files_that_do_not_fit_to_the_answers_own_do_no_harm() -> None:
    clash = FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    clash.name = "other.proto"
    packed = any_pb2.Any(type_url=URL, value=WEIGHS_800_G)
    assert await shown(packed, sent=[clash, PARCEL]) == {"@type": URL, "weightG": 800}


async def test_what_is_packed_without_end_is_shown_as_bytes_from_a_depth_on() -> None:
    packed = any_pb2.Any(type_url=URL, value=WEIGHS_800_G)
    for _ in range(1500):
        outer = any_pb2.Any()
        outer.Pack(packed)
        packed = outer
    told = json.dumps(await shown(packed, sent=[PARCEL]))
    assert told.count("google.protobuf.Any/google.protobuf.BytesValue") == 1
    # Each level is read for all that are above it.
    assert told.count('google.protobuf.Any"') == DEEPEST // PACKED_COUNTS


async def test_types_are_looked_up_once_each_within_others_too_and_no_more_than_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def files_defining(_: object, name: str) -> list[bytes]:
        asked.append(name)
        return [file.SerializeToString() for file in (PALLET, PARCEL) if name.endswith(file.message_type[0].name)]

    monkeypatch.setattr(module, "files_defining", files_defining)
    parcels = [any_pb2.Any(type_url=URL, value=WEIGHS_800_G)] * 2
    others = [any_pb2.Any(type_url=f"x/T{at % 20}") for at in range(200)]
    outer = any_pb2.Any(type_url="x/acme.parcels.v1.Pallet", value=_list_of([*parcels, *others]))

    told = await shown(outer)

    assert cast("dict[str, list[object]]", told)["parcels"][:2] == [{"@type": URL, "weightG": 800}] * 2
    assert asked == ["acme.parcels.v1.Pallet", "acme.parcels.v1.Parcel", *(f"T{at}" for at in range(TYPES_MOST - 2))]


def _list_of(anys: Iterable[any_pb2.Any]) -> bytes:
    """As a Pallet has them: Status has its details at the same number."""
    return Status(details=anys).SerializeToString()
