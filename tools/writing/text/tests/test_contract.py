import json

import grpc
import pytest
from acme.writing.v1 import text_pb2 as pb
from google.protobuf import descriptor, json_format, message_factory
from text.service import TextService

from llmesh import testing
from llmesh.api.options.v1 import options_pb2

SERVICE = pb.DESCRIPTOR.services_by_name["Text"]
METHODS = [pytest.param(method, id=method.name) for method in SERVICE.methods]


@pytest.mark.parametrize("method", METHODS)
async def test_an_example_is_a_call_that_works(method: descriptor.MethodDescriptor) -> None:
    sheet = method.GetOptions().Extensions[options_pb2.method]
    assert sheet.examples
    async with testing.run(TextService()) as tool:
        for example in sheet.examples:
            answers = await _call(tool.channel, method, example.request_json)
            assert answers
            if example.response_json:
                assert answers == [json.loads(example.response_json)]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reads_and_says_so(method: descriptor.MethodDescriptor) -> None:
    options = method.GetOptions()
    assert options.Extensions[options_pb2.method].effect == options_pb2.EFFECT_READ
    assert options.idempotency_level == options.NO_SIDE_EFFECTS


@pytest.mark.parametrize("message", list(pb.DESCRIPTOR.message_types_by_name.values()), ids=lambda found: found.name)
def test_every_field_says_what_it_means_and_who_may_see_it(message: descriptor.Descriptor) -> None:
    for field in message.fields:
        sheet = field.GetOptions().Extensions[options_pb2.field]
        assert sheet.meaning, field.full_name
        assert sheet.data_class, field.full_name
        assert sheet.redact == (sheet.data_class == options_pb2.DATA_CLASS_CONFIDENTIAL), field.full_name


async def _call(
    channel: grpc.aio.Channel, method: descriptor.MethodDescriptor, request_json: str
) -> list[dict[str, object]]:
    """Every answer to the one request; on the wire, a call of any shape is one of streams."""
    request = json_format.Parse(request_json, message_factory.GetMessageClass(method.input_type)())
    start = channel.stream_stream(
        f"/{SERVICE.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    return [json_format.MessageToDict(answer) async for answer in start(iter([request]))]
